// SPDX-License-Identifier: Apache-2.0

// Package verity makes the guest's root a dm-verity device: a block device
// whose every read the kernel checks against a tree of SHA-256 hashes, up to
// one root hash. That hash comes on the kernel's command line, from the signed
// spec; with it, the disk itself needs no trust.
//
// The device is made by kernel/dm. A block that does not match, or that cannot
// be read, makes the kernel panic. There is nothing that a guest with a forged
// root could sensibly do instead.
package verity

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Word is the one of the kernel command line that names the root.
const Word = "zos.verity="

// BlockSize of data and hashes.
const BlockSize = 4096

// Params are what must be known of a root.
type Params struct {
	Root   string // 64 hex digits
	Blocks uint64 // of data; the hash tree begins right behind them
}

// ParseCmdline finds the parameters. None and two are both errors: the second
// could be one that somebody appended.
func ParseCmdline(cmdline string) (Params, error) {
	var found []string
	for _, w := range strings.Fields(cmdline) {
		if v, ok := strings.CutPrefix(w, Word); ok {
			found = append(found, v)
		}
	}
	if len(found) != 1 {
		return Params{}, fmt.Errorf("%d words %s… on the kernel command line, want one", len(found), Word)
	}
	root, blocks, ok := strings.Cut(found[0], ",")
	if !ok {
		return Params{}, fmt.Errorf("%s%s: want <root>,<blocks>", Word, found[0])
	}
	if b, err := hex.DecodeString(root); err != nil || len(b) != 32 || strings.ToLower(root) != root {
		return Params{}, fmt.Errorf("%s: %q are not 64 lower-case hex digits", Word, root)
	}
	n, err := strconv.ParseUint(blocks, 10, 64)
	if err != nil || n == 0 || n > 1<<40 || strconv.FormatUint(n, 10) != blocks {
		return Params{}, fmt.Errorf("%s: %q is no number of blocks", Word, blocks)
	}
	return Params{Root: root, Blocks: n}, nil
}

// Sectors is the size of the device in units of 512 bytes.
func (p Params) Sectors() uint64 { return p.Blocks * (BlockSize / 512) }

// Table is the target's line for device-mapper: version 1, data and hashes on
// one device, empty salt.
func (p Params) Table(device string) string {
	return fmt.Sprintf("1 %s %s %d %d %d %d sha256 %s - 2 panic_on_corruption panic_on_error",
		device, device, BlockSize, BlockSize, p.Blocks, p.Blocks, p.Root)
}

// State is the device as the kernel tells it.
type State struct {
	Table  string // "<start> <length> verity <parameters>"
	Status string // "V": nothing wrong so far
}

// ErrNotVerity is a device that is not what was asked for.
var ErrNotVerity = errors.New("the root is not held by verity as demanded")

// check compares the kernel's word with what was loaded. The kernel names the
// device by its number instead of its path, and may list the options in its
// own order.
func (p Params) check(s State, number string) error {
	f := strings.Fields(s.Table)
	want := strings.Fields(fmt.Sprintf("0 %d verity 1 %s %s %d %d %d %d sha256 %s -",
		p.Sectors(), number, number, BlockSize, BlockSize, p.Blocks, p.Blocks, p.Root))
	if len(f) < len(want) || strings.Join(f[:len(want)], " ") != strings.Join(want, " ") {
		return fmt.Errorf("%w: table %q", ErrNotVerity, s.Table)
	}
	options := map[string]bool{}
	for _, o := range f[len(want):] {
		options[o] = true
	}
	if len(options) != 3 || !options["2"] || !options["panic_on_corruption"] || !options["panic_on_error"] {
		return fmt.Errorf("%w: options %q", ErrNotVerity, f[len(want):])
	}
	if s.Status != "V" {
		return fmt.Errorf("%w: status %q", ErrNotVerity, s.Status)
	}
	return nil
}
