#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints the path of an nginx, which `make bench BENCH=ledger` holds a mirror
# against: ZOS_NGINX's, the installed one, or that of Debian's package, unpacked
# below build/ and not installed, so that no server starts here. Prints nothing,
# and says why, where none can be had; the bench then does not compare.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${ZOS_NGINX:-}" ]; then printf '%s\n' "$ZOS_NGINX"; exit; fi
if command -v nginx; then exit; fi
dir=$PWD/build/cache/nginx bin=$PWD/build/cache/nginx/usr/sbin/nginx
if [ ! -x "$bin" ]; then
  mkdir -p "$dir"
  tmp=$(mktemp -d)
  trap 'rm -rf "$tmp"' EXIT
  { (cd "$tmp" && apt-get -o APT::Sandbox::User=root download -q nginx) && dpkg-deb -x "$tmp"/nginx_*.deb "$dir"; } >&2 || {
    echo 'nginx: its package could not be fetched, so that a mirror is not compared with it; do: apt-get update, or install nginx' >&2
    exit 0
  }
fi
if ldd "$bin" | grep 'not found' >&2; then
  echo 'nginx: these libraries are missing, so that a mirror is not compared with it; do: install nginx' >&2
  exit 0
fi
printf '%s\n' "$bin"
