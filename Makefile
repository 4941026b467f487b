# SPDX-License-Identifier: Apache-2.0
#
# Two commands: `make run` does the main job once, `make test` runs every test.
# Both set the machine up first (ci/setup.sh: Debian packages, nothing else).

BOARD ?= qemu-x86_64
export CGO_ENABLED := 0
export GOFLAGS := -trimpath
# Where Debian puts sgdisk, nft and their like, which an ordinary user of sudo
# does not have in his path.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
export FUZZTIME ?= 60s
export FUZZ

.PHONY: run test test-boot test-update test-ledger test-image test-s3 fuzz fuzz-image bench image image-wanted deb programs setup clean

run: programs
	@build/bin/demo

test: programs
	@ci/test.sh

# Every medium, bus, firmware and board, every fault, and what each hypervisor
# does alone; `make test` has the fast rows of it.
test-boot: programs
	@ZOS_BOOT=all go test -v -count=1 -timeout 120m -run '^(TestLazy|TestUpdateWithGuests|TestOfflineReboot|TestArm|TestArmFromDisk)$$' ./qemu/e2e
	@CLOUD_HYPERVISOR=none go test -v -count=1 -timeout 60m -run '^(TestRefused|TestMirrors)$$' ./qemu/e2e
	@ZOS_BOOT=all go test -v -count=1 -timeout 30m -run '^TestSameFromTwoPlaces$$' ./image
	@ZOS_NETLAB=1 go test -v -count=1 -timeout 30m ./qemu/netlab
	@ZOS_BOOT=all go test -v -count=1 -p 1 -timeout 240m ./qemu/media ./qemu/trouble

# Updates alone: X to Y to Z, broken ones that go back, power cuts.
test-update: programs
	@ZOS_BOOT=all go test -v -count=1 -timeout 150m -run '^TestUpdate' ./qemu/media

# FUZZTIME=1h FUZZ='./zimage/... ./guest/wire' picks how long and where.
fuzz: setup
	@ci/fuzz.sh

# What decodes an image and a guest's configuration; CI runs it before the tests.
fuzz-image: setup
	@FUZZ='./zimage/flat:FuzzLayer ./zimage/pack:FuzzRead ./zimage:FuzzDecodeManifest ./zimage:FuzzChunkIndex ./zimage:FuzzConvert ./guest/wire:FuzzDecode' JOBS=2 ci/fuzz.sh

# What is done to images on purpose: to the stores at every step, to disks under
# guests, from inside of guests, and to what running deployments were
# started from. Takes 11 min where KVM does not work and nobody else works on
# the machine, and ends in tables.
test-image: programs test-s3
	@mkdir -p build/test
	@ZOS_FAULTS=all go test -v -count=1 -timeout 30m -run 'EveryStep|FullDisk|Scrub' ./zimage ./agent/content
	@ZOS_LIMITS=all go test -v -count=1 -timeout 30m -run 'ConvertMemory|ThroughTheWholeConversion' ./cmd/zos ./zimage
	@bash -o pipefail -c "ZOS_VMTEST=attacks go test -v -count=1 -timeout 60m -run '^TestNested$$' ./agent/vm/vmtest | tee build/test/attacks.log | grep -E '^ *--- |^(ok|FAIL|panic)'"
	@bash -o pipefail -c "ZOS_E2E=attacks go test -v -count=1 -timeout 40m -run '^TestAttacks$$' ./qemu/e2e"
	@echo; echo "== attacks: a wrong block is read, its guest ends, its VM is gone"
	@grep -ohE '(ATTACK|INSIDE) .*' build/test/attacks.log

# Package s3 against a server that people run, which is built for it from
# zimage/s3/server/go.mod and listens on a socket in a temporary folder.
VERSITYGW = github.com/versity/versitygw
test-s3: setup
	@cd zimage/s3/server && if go list -deps $(VERSITYGW)/cmd/versitygw >/dev/null; then \
	  go build -o $(CURDIR)/build/bin/versitygw $(VERSITYGW)/cmd/versitygw && cd $(CURDIR) && \
	  echo "== zimage/s3 against $$(cd zimage/s3/server && go list -m $(VERSITYGW))" && \
	  ZOS_S3_SERVER=$(CURDIR)/build/bin/versitygw go test -v -count=1 ./zimage/s3; \
	else echo "SKIP TestPublish and TestRefused of zimage/s3 against $(VERSITYGW): it cannot be fetched"; fi

# What breaks a ledger of several validators on purpose: takes up to 30 min and
# prints a table.
test-ledger: setup
	@bash -o pipefail -c "go test -tags faults -count=1 -timeout 30m -run '^TestFaults' -v ./ledger/bft | grep -vE '^(=== |time=)'"

# BENCH=image measures conversion, transport and cold starts against other tools,
# and reads in a guest against the same disk without verity,
# BENCH=ledger the ledger and its anchors (PART=one, four, client, million, reads,
# size, claims, growth: one of them), BENCH=boot boots, sizes and memory
# against Debian and u-root (as root: it makes roots of Debian).
bench: programs
ifeq ($(BENCH),image)
	@go build -ldflags='-s -w -buildid=' -o build/bin/ ./qemu/imagebench ./qemu/imagebench/launch
	@build/bin/imagebench -o build/bench-image.json
else ifeq ($(BENCH),ledger)
	@mkdir -p build
	@$(if $(filter-out reads,$(PART)),,ZOS_NGINX="$$(ci/nginx.sh)" )ZOS_BENCH=$(CURDIR)/build/bench-ledger.json bash -o pipefail -c "go test -tags bench -count=1 -timeout 90m -run '^TestBench$$/$(PART)' -v ./ledger/bft | grep --line-buffered -vE '^(=== |time=)'"
else ifeq ($(BENCH),boot)
	@build/bin/demo --bench build/bench-boot.json --bench-boot
else
	@build/bin/demo --bench build/bench.json
endif

# ROOT=ledger/root.json and SEED=seed.json make an image for a real ledger;
# without ROOT it trusts keys that are made for it in build/run/keys, for which
# nobody has a seed yet. KEYS=folder (zos node keys) signs it for Secure Boot,
# VERSION=1.4.0 is what updates go by. BOARD is a name of boards/, or a file of
# your own that ends in .yaml.
image: image-wanted programs
	@$(if $(ROOT),build/bin/zos node build --root $(ROOT) $(if $(SEED),--seed $(SEED)) -o build/images/$(basename $(notdir $(BOARD))),build/bin/demo --image-only) \
	  --board $(BOARD) $(if $(KEYS),--keys $(KEYS)) $(if $(VERSION),--version $(VERSION))

# Before minutes are spent on an image that nobody wanted.
image-wanted:
	$(if $(SEED),$(if $(ROOT),,$(error SEED=$(SEED) without ROOT: the image would trust keys that are made for it just now, and the ledger of the seed has others; add ROOT=root.json of that ledger)))
	$(if $(KEYS),$(if $(wildcard $(KEYS)/db.key),,$(error KEYS=$(KEYS) has no db.key: want a folder that zos node keys made)))
	@:

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
