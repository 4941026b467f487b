#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs every test and says which end-to-end cases ran and what was skipped.
# The full output stands in build/test/*.log.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/test
rc=0 start=$SECONDS

# suite NAME LIMIT ARGUMENT…: go test -v into a log; the terminal sees packages,
# failures and skips as they happen. Returns go test's exit code.
suite() {
  local name=$1 limit=$2; shift 2
  local log=build/test/$name.log
  echo "== $name"
  go test -v -count=1 -timeout "$limit" "$@" 2>&1 | tee "$log" |
    grep --line-buffered -E '^(ok|FAIL|panic:)|^ *--- (FAIL|SKIP)|SKIP ' | grep --line-buffered -v 'no test files'
  local st=${PIPESTATUS[0]}
  [ "$st" = 0 ] && return 0
  echo "== $name FAILED; see $log"
  awk -f ci/failures.awk "$log" | head -n 400
  return 1
}

echo "== vet"
go vet ./... || rc=1
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
if [ -n "$unformatted" ]; then echo "not gofmt-clean: $unformatted"; rc=1; fi

mapfile -t unit < <(go list ./... | grep -v -e '/qemu/e2e$' -e '/zos/build/')
suite unit 20m "${unit[@]}" || rc=1
# A kernel that died of the emulator's known race (never a failed assertion)
# lets its test be run again, once, and that is said.
if ! suite e2e 60m ./qemu/e2e; then
  failed=$(grep -E '^--- FAIL' build/test/e2e.log | awk '{print $3}' | sort -u)
  # Each such test says so itself; whatever else failed stays failed.
  broken=$(grep -oE 'EMULATOR FAULT in [A-Za-z0-9_]+' build/test/e2e.log | awk '{print $4}' | sort -u)
  if [ -n "$failed" ] && [ -z "$(comm -23 <(echo "$failed") <(echo "$broken"))" ]; then
    again=$(echo "$failed" | paste -sd'|')
    echo "== e2e: the emulator broke; once more: $again"
    mv build/test/e2e.log build/test/e2e-broken.log
    suite e2e 60m -run "^($again)\$" ./qemu/e2e || rc=1
    # What passed and what was skipped the first time still counts.
    grep -hE '^ *--- (PASS|SKIP)' build/test/e2e-broken.log | grep -vE -- "--- (PASS|SKIP): ($again)(/| )" >>build/test/e2e.log
  else
    rc=1
  fi
fi

echo
echo "== end-to-end cases"
{ grep -hE '^ *--- (PASS|FAIL|SKIP)' build/test/e2e.log; grep -hE '^ *--- (PASS|FAIL|SKIP): TestNested' build/test/unit.log; } | sed 's/^ *--- //' | sort -k1,1 -s
count() { cat build/test/unit.log build/test/e2e.log | grep -cE "^ *--- $1"; }
echo
echo "== $((SECONDS-start)) s"
echo "$(count PASS) passed, $(count FAIL) failed, $(count SKIP) skipped"
exit "$rc"
