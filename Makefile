# SPDX-License-Identifier: Apache-2.0
#
# Two commands: `make run` does the main job once, `make test` runs every test.
# Both set the machine up first (ci/setup.sh: Debian packages, nothing else).

BOARD ?= qemu-x86_64
export CGO_ENABLED := 0
export GOFLAGS := -trimpath
export FUZZTIME ?= 60s
export FUZZ

.PHONY: run test test-boot test-ledger fuzz bench image deb programs setup clean

run: programs
	@build/bin/demo

test: programs
	@ci/test.sh

# Every medium, bus, firmware and board, and every fault; `make test` has the
# fast rows of it.
test-boot: programs
	@ZOS_BOOT=all go test -v -count=1 -p 1 -timeout 90m ./qemu/media ./qemu/trouble

# FUZZTIME=1h FUZZ='./zimage/... ./guest/wire' picks how long and where.
fuzz: setup
	@ci/fuzz.sh

# What breaks a ledger of several validators on purpose: takes up to 30 min and
# prints a table.
test-ledger: setup
	@bash -o pipefail -c "go test -tags faults -count=1 -timeout 30m -run '^TestFaults$$' -v ./ledger/bft | grep -vE '^(=== |time=)'"

# BENCH=image measures conversion and transport against other tools instead,
# BENCH=ledger the ledger and its anchors.
bench: programs
ifeq ($(BENCH),image)
	@go build -ldflags='-s -w -buildid=' -o build/bin/ ./qemu/imagebench
	@build/bin/imagebench -o build/bench-image.json
else ifeq ($(BENCH),ledger)
	@mkdir -p build
	@ZOS_BENCH=$(CURDIR)/build/bench-ledger.json bash -o pipefail -c "go test -tags bench -count=1 -timeout 60m -run '^TestBench$$' -v ./ledger/bft | grep -vE '^(=== |time=)'"
else
	@build/bin/demo --bench build/bench.json
endif

# ROOT=ledger/root.json and SEED=seed.json make an image for a real ledger;
# without ROOT it trusts keys that are made for it in build/run/keys. KEYS=folder
# (zos node keys) signs it for Secure Boot.
image: programs
ifdef ROOT
	@build/bin/zos node build --board $(BOARD) --root $(ROOT) $(if $(SEED),--seed $(SEED)) $(if $(KEYS),--keys $(KEYS)) -o build/images/$(BOARD)
else
	@build/bin/demo --image-only --board $(BOARD)
endif

# The Debian package of validators and mirrors; ARCH=arm64 for the other. Its
# bytes follow from the commit alone.
ARCH ?= amd64
deb: TIME = $(shell git log -1 --format=%ct)
deb: VERSION = 0~$(shell TZ=UTC git log -1 --date=format-local:%Y%m%d%H%M%S --format=%cd).$(shell git rev-parse --short=12 HEAD)
deb: setup
	@mkdir -p build/deb
	@GOARCH=$(ARCH) go build -ldflags='-s -w -buildid=' -o build/deb/zos-$(ARCH) ./cmd/zos
	@go run ./packaging/mkdeb -arch $(ARCH) -version $(VERSION) -time $(TIME) -program build/deb/zos-$(ARCH) -o build/deb/zos-ledger_$(VERSION)_$(ARCH).deb

programs: setup
	@echo "== programs"
	@go build -ldflags='-s -w -buildid=' -o build/bin/ ./cmd/zos ./qemu/demo

setup:
	@ci/setup.sh

clean:
	rm -rf build
