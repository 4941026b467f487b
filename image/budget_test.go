// SPDX-License-Identifier: Apache-2.0

package image

import (
	"os"
	"path/filepath"
	"testing"
)

const mb = 1_000_000 // as people count bytes of images

// budgets are the bytes that a board's UKI may have: what is loaded over a
// network at each boot, and what a machine's firmware has room for.
var budgets = map[string]int{
	"qemu-arm64":  40 * mb,
	"qemu-x86_64": 40 * mb,
	"vm-x86_64":   40 * mb,
	"pc-x86_64":   90 * mb,
}

const (
	initBudget   = 4 * mb // unpacked
	mostPrograms = 6      // that can be started on a node
)

// judgeBudget holds a built image against its board's. Its hypervisor may be a
// stand-in that is smaller than any; then this only sees the rest.
func judgeBudget(t *testing.T, board, out string) {
	t.Helper()
	uki, err := os.ReadFile(filepath.Join(out, MediumUKI))
	if err != nil {
		t.Fatal(err)
	}
	switch most, ok := budgets[board]; {
	case !ok:
		t.Errorf("board %s has no budget: say how large its UKI may be", board)
	case len(uki) > most:
		t.Errorf("the UKI has %d bytes, %s may have %d; zos node inspect shows where they are", len(uki), board, most)
	}
	shares, programs, err := Weigh(uki)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range shares {
		t.Logf("%-24s %3d files %9d bytes, packed %9d", s.What, s.Files, s.Bytes, s.Packed)
		if s.What == "init" && s.Bytes > initBudget {
			t.Errorf("init has %d bytes, at most %d are allowed", s.Bytes, initBudget)
		}
	}
	if len(programs) > mostPrograms {
		t.Errorf("%d programs, at most %d are allowed: %v", len(programs), mostPrograms, programs)
	}
	t.Logf("UKI %d of %d bytes, programs %v", len(uki), budgets[board], programs)
}
