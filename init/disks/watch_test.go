// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/kernel/partition"
)

// TestWatch: a twin that shows up late is seen, and that it is gone; disks that
// nobody plugged in are not read again.
func TestWatch(t *testing.T) {
	root := t.TempDir()
	w := Watch{Sys: filepath.Join(root, "class"), Dev: filepath.Join(root, "dev")}
	look := func(when string, twins bool) {
		t.Helper()
		if err := w.Look(); errors.Is(err, partition.ErrTwins) != twins || !twins && err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	look("no disk", false)
	put(t, root, "vda", partition.BootLabel, 512, 0, "A1")
	look("one", false)
	put(t, root, "sda", "EFI", 512, 0, "B2")
	look("a stick of somebody else's", false)
	put(t, root, "sdb", partition.BootLabel, 512, 1, "C3")
	look("another image", false)
	table := filepath.Join(root, "dev/vda")
	kept, err := os.ReadFile(table)
	if err == nil {
		err = os.Remove(table)
	}
	if err != nil {
		t.Fatal(err)
	}
	look("nothing came: no disk is read", false)
	put(t, root, "sdc", partition.BootLabel, 512, 0, "D4")
	for range 2 { // what cannot be read is looked at again
		if err := w.Look(); err == nil || errors.Is(err, partition.ErrTwins) {
			t.Errorf("a disk that cannot be read: %v", err)
		}
	}
	if err := os.WriteFile(table, kept, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		look("a twin", true)
	}
	if err := os.Remove(filepath.Join(root, "class/sdc1")); err != nil {
		t.Fatal(err)
	}
	look("the twin is gone", false)
}
