#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs each fuzz target for FUZZTIME (60s). FUZZ names the packages to look
# in; all are looked in without it. What a target finds stands afterwards in
# testdata/fuzz of its package: commit it, it is a test case from then on.
#
# Inputs are hardly minimized: by default that takes up to a minute for each
# interesting one, in which nothing new is tried.
set -uo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-60s} passed=0 failed=0 start=$SECONDS
mkdir -p build/test
log=build/test/fuzz.log
: >"$log"

# shellcheck disable=SC2086 # FUZZ is a list
mapfile -t folders < <(go list -f '{{.Dir}}' ${FUZZ:-./...} | xargs -I{} sh -c 'grep -lq "^func Fuzz" {}/*_test.go 2>/dev/null && echo {}')
if [ ${#folders[@]} -eq 0 ]; then
  echo "fuzz: no fuzz target in ${FUZZ:-./...}; name packages, as in FUZZ='./zimage/... ./guest/wire'" >&2
  exit 1
fi
for dir in "${folders[@]}"; do
  pkg=./${dir#"$PWD"/}
  for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go | awk '{print $2}'); do
    echo "=== $pkg $target" >>"$log"
    if out=$(go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 20x "$pkg" 2>&1); then
      passed=$((passed+1))
      echo "ok   $pkg $target: $(grep -oE 'execs: [0-9]+ .*' <<<"$out" | tail -n 1)"
    else
      failed=$((failed+1))
      echo "FAIL $pkg $target"
      tail -n 40 <<<"$out"
    fi
    echo "$out" >>"$log"
  done
done
echo "== $((SECONDS-start)) s"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
