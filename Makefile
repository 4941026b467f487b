# SPDX-License-Identifier: Apache-2.0
#
# Two commands: `make run` does the main job once, `make test` runs every test.
# Both set the machine up first (ci/setup.sh: Debian packages, nothing else).

BOARD ?= qemu-x86_64
export CGO_ENABLED := 0
export GOFLAGS := -trimpath

.PHONY: run test test-ledger bench image programs setup clean

run: programs
	@build/bin/demo

test: programs
	@ci/test.sh

# What breaks a ledger of several validators on purpose: takes up to 30 min and
# prints a table.
test-ledger: setup
	@go test -tags faults -count=1 -timeout 30m -run '^TestFaults$$' -v ./ledger/bft | grep -vE '^(=== |time=)'

# BENCH=ledger measures the ledger and its anchors instead.
bench: programs
ifeq ($(BENCH),ledger)
	@ZOS_BENCH=$(CURDIR)/build/bench-ledger.json go test -tags bench -count=1 -timeout 60m -run '^TestBench$$' -v ./ledger/bft | grep -vE '^(=== |time=)'
else
	@build/bin/demo --bench build/bench.json
endif

# ROOT=ledger/root.json and SEED=seed.json make an image for a real ledger;
# without ROOT it trusts keys that are made for it in build/run/keys.
image: programs
ifdef ROOT
	@build/bin/zos node build --board $(BOARD) --root $(ROOT) $(if $(SEED),--seed $(SEED)) -o build/images/$(BOARD)
else
	@build/bin/demo --image-only --board $(BOARD)
endif

programs: setup
	@echo "== programs"
	@go build -ldflags='-s -w -buildid=' -o build/bin/ ./cmd/zos ./qemu/demo

setup:
	@ci/setup.sh

clean:
	rm -rf build
