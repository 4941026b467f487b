#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian packages of ci/packages.txt that are missing. A machine
# that has them all is left alone, without a look at the network.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'setup: %s\n  expected: %s\n  do: %s\n' "$1" "$2" "$3" >&2; exit 1; }

want_go=$(awk '$1=="go"{print $2; exit}' go.mod)
command -v go >/dev/null || fail 'no Go' "Go $want_go or newer on PATH, as go.mod says" 'install Go from https://go.dev/dl and add its bin folder to PATH'

# go.mod says which Go. An older one may know how to fetch that one itself
# (GOTOOLCHAIN); what Debian 12 has does not.
release() { sed -n 's/.*\bgo\([0-9][0-9.]*\).*/\1/p' | head -n 1; }
reaches() { [ -n "$1" ] && [ "$(printf '%s\n' "$1" "$want_go" | sort -V | head -n 1)" = "$want_go" ]; }
own_go=$(cd / && GOTOOLCHAIN=local go version 2>/dev/null | release || true)
if ! reaches "$own_go"; then
  echo "== go: go.mod wants $want_go, $(command -v go) is ${own_go:-of no version that it says}"
  used_go=$(go version 2>/dev/null | release || true)
  reaches "$used_go" ||
    fail "Go is too old: $(command -v go) is version ${own_go:-unknown}" "Go $want_go or newer, as go.mod says" 'install Go from https://go.dev/dl and put its bin folder first on PATH'
  echo "== go: it fetched $used_go, which is used"
fi

[ -r /etc/debian_version ] || fail 'this is not Debian' 'Debian 12 or 13' 'run it in a Debian virtual machine'

mapfile -t want < <(sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' ci/packages.txt)
have=$(dpkg-query -f '${Package} ${db:Status-Status}\n' -W "${want[@]}" 2>/dev/null | awk '$2=="installed"{print $1}' | sort -u || true)
missing=()
for p in "${want[@]}"; do grep -qx "$p" <<<"$have" || missing+=("$p"); done
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || fail 'packages are missing and this is not root' 'root, or sudo' "as root: apt-get install ${missing[*]}"
  sudo=sudo
fi
echo "== packages: installing ${missing[*]}"
start=$SECONDS
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
$sudo apt-get update -qq >"$log" 2>&1 || { cat "$log" >&2; fail 'apt-get update failed' 'reachable Debian sources' 'check /etc/apt and the network, then run the command again'; }
$sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$log" 2>&1 ||
  { tail -n 20 "$log" >&2; fail 'apt-get install failed' "${missing[*]} installed" 'read the lines above, then run the command again'; }
echo "== packages: ${#missing[@]} and what they need, $((SECONDS-start)) s"
