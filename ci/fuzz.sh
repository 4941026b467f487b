#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs each fuzz target for FUZZTIME (60s), JOBS (1) at a time. FUZZ names
# where to look: packages, or single targets as ./zimage:FuzzWire; all are
# looked in without it. What a target finds stands afterwards in testdata/fuzz
# of its package: commit it, it is a test case from then on.
#
# Inputs are hardly minimized: by default that takes up to a minute for each
# interesting one, in which nothing new is tried.
set -uo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-60s} jobs=${JOBS:-1} start=$SECONDS
mkdir -p build/test
log=build/test/fuzz.log
: >"$log"
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

targets=() packages=()
for f in ${FUZZ:-./...}; do
  case $f in
    *:*) targets+=("$f") ;;
    *) packages+=("$f") ;;
  esac
done
if [ ${#packages[@]} -gt 0 ]; then
  mapfile -t folders < <(go list -f '{{.Dir}}' "${packages[@]}" | xargs -I{} sh -c 'grep -lq "^func Fuzz" {}/*_test.go 2>/dev/null && echo {}')
  for dir in "${folders[@]}"; do
    for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go | awk '{print $2}'); do
      targets+=("./${dir#"$PWD"/}:$target")
    done
  done
fi
if [ ${#targets[@]} -eq 0 ]; then
  echo "fuzz: no fuzz target in ${FUZZ:-./...}; name packages, as in FUZZ='./zimage/... ./guest/wire'" >&2
  exit 1
fi

# one PACKAGE TARGET: with several jobs, each has one worker.
one() {
  local pkg=$1 target=$2 out rc=0 workers=()
  [ "$jobs" -gt 1 ] && workers=(-parallel 1)
  out=$(go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 20x "${workers[@]}" "$pkg" 2>&1) || rc=1
  # Go's fuzzer sometimes takes the end of its own time for a failure of the
  # target. A finding has an input that it wrote down.
  if [ "$rc" = 1 ] && grep -q 'context deadline exceeded' <<<"$out" && ! grep -qE 'Failing input|panic|hung or terminated' <<<"$out"; then
    rc=0
  fi
  # Of a target that is not there Go says only a warning, and that all is well.
  if [ "$rc" = 0 ] && ! grep -qE 'execs: [1-9]' <<<"$out"; then
    rc=1
    out+=$'\n'"fuzz: nothing was tried: want func $target(f *testing.F) in $pkg, and a FUZZTIME that is longer than its corpus takes"
  fi
  if [ "$rc" = 0 ]; then
    echo "ok   $pkg $target: $(grep -oE 'execs: [0-9]+ .*' <<<"$out" | tail -n 1)"
  else
    echo "FAIL $pkg $target"
    tail -n 40 <<<"$out"
  fi
  pkg=${pkg#./}
  { echo "=== $pkg $target"; echo "$out"; } >"$results/${pkg//\//_}.$target.$rc"
}

for t in "${targets[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
  one "${t%%:*}" "${t#*:}" &
done
wait
cat "$results"/* >>"$log"
passed=$(find "$results" -name '*.0' | wc -l) failed=$(( ${#targets[@]} - $(find "$results" -name '*.0' | wc -l) ))
echo "== $((SECONDS-start)) s"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
