// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/kernel/partition"
)

func TestWipe(t *testing.T) {
	root := t.TempDir()
	sys, dev := filepath.Join(root, "class"), filepath.Join(root, "dev")
	if device, err := Wipe(sys, dev, StateName); device != "" || err != nil {
		t.Errorf("no disk: %q, %v", device, err)
	}
	full := bytes.Repeat([]byte{0xff}, 3<<20+5)
	fill := func(name string) string {
		p := filepath.Join(dev, name)
		if err := os.WriteFile(p, full, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	put(t, root, "sda", partition.BootLabel, 512, 1, "A")
	put(t, root, "sdb", StateName, 512, 2, "B")
	other, state := fill("sda1"), fill("sdb1")
	device, err := Wipe(sys, dev, StateName)
	if device != state || err != nil {
		t.Fatalf("%q, %v", device, err)
	}
	if b, err := os.ReadFile(state); err != nil || len(b) != len(full) || len(bytes.Trim(b, "\x00")) != 0 {
		t.Errorf("%d bytes are left, %v", len(b), err)
	}
	if b, err := os.ReadFile(other); err != nil || !bytes.Equal(b, full) {
		t.Errorf("another partition was written to (%v)", err)
	}

	put(t, root, "sdc", StateName, 4096, 3, "C")
	state, third := fill("sdb1"), fill("sdc1")
	if _, err := Wipe(sys, dev, StateName); !errors.Is(err, ErrSeveral) {
		t.Errorf("two: %v", err)
	}
	for _, p := range []string{state, third} {
		if b, err := os.ReadFile(p); err != nil || !bytes.Equal(b, full) {
			t.Errorf("%s was touched (%v)", p, err)
		}
	}
}
