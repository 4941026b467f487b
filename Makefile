# SPDX-License-Identifier: Apache-2.0
#
# Two commands: `make run` does the main job once, `make test` runs every test.
# Both set the machine up first (ci/setup.sh: Debian packages, nothing else).

BOARD ?= qemu-x86_64
export CGO_ENABLED := 0
export GOFLAGS := -trimpath

.PHONY: run test bench image programs setup clean

run: programs
	@build/bin/demo

test: programs
	@ci/test.sh

bench: programs
	@build/bin/demo --bench build/bench.json

image: programs
	@build/bin/zos ledger init --help >/dev/null
	@build/bin/demo --image-only --board $(BOARD)

programs: setup
	@echo "== programs"
	@go build -ldflags='-s -w -buildid=' -o build/bin/ ./cmd/zos ./qemu/demo

setup:
	@ci/setup.sh

clean:
	rm -rf build
