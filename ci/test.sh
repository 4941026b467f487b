#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs every test and says which end-to-end cases ran and what was skipped.
# The full output stands in build/test/*.log.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/test
rc=0 start=$SECONDS

# suite NAME LIMIT PACKAGE…: go test -v into a log; the terminal sees packages,
# failures and skips as they happen.
suite() {
  local name=$1 limit=$2; shift 2
  local log=build/test/$name.log
  echo "== $name"
  go test -v -count=1 -timeout "$limit" "$@" 2>&1 | tee "$log" |
    grep --line-buffered -E '^(ok|FAIL|panic:)|^ *--- (FAIL|SKIP)|SKIP ' | grep --line-buffered -v 'no test files' || true
  local st=${PIPESTATUS[0]}
  if [ "$st" != 0 ]; then rc=1; echo "== $name FAILED; see $log"; grep -E -A25 '^ *--- FAIL|^panic:' "$log" | head -n 150; fi
}

echo "== vet"
go vet ./... || rc=1
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
if [ -n "$unformatted" ]; then echo "not gofmt-clean: $unformatted"; rc=1; fi

mapfile -t unit < <(go list ./... | grep -v '/qemu/e2e$')
suite unit 15m "${unit[@]}"
suite e2e 60m ./qemu/e2e

echo
echo "== end-to-end cases"
grep -hE '^ *--- (PASS|FAIL|SKIP)' build/test/e2e.log | sed 's/^ *--- //' | sort -k1,1 -s
count() { cat build/test/unit.log build/test/e2e.log | grep -cE "^ *--- $1"; }
echo
echo "== $((SECONDS-start)) s"
echo "$(count PASS) passed, $(count FAIL) failed, $(count SKIP) skipped"
exit "$rc"
