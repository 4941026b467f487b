// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	put := func(t *testing.T, root, disk, part, uevent, serial string) {
		t.Helper()
		dir := filepath.Join(root, "devices", disk, part)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{filepath.Join(dir, "uevent"): uevent, filepath.Join(root, "devices", disk, "serial"): serial} {
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(filepath.Join(root, "class"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(dir, filepath.Join(root, "class", part)); err != nil {
			t.Fatal(err)
		}
	}
	const ours = "DEVTYPE=partition\nPARTNAME=zos ESP\nPARTUUID=g1\n"
	for name, c := range map[string]struct {
		second string
		twins  bool
	}{
		"one":            {"", false},
		"another build":  {strings.Replace(ours, "g1", "g2", 1), false},
		"somebody's ESP": {strings.Replace(ours, "zos ESP", "EFI", 1), false},
		"a twin":         {ours, true},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, "vda", "vda1", ours, "A1\n")
			if c.second != "" {
				put(t, root, "sda", "sda1", c.second, "B2\n")
			}
			err := Check(filepath.Join(root, "class"))
			if errors.Is(err, ErrTwins) != c.twins || !c.twins && err != nil {
				t.Fatal(err)
			}
			if c.twins && !strings.Contains(err.Error(), "g1 on sda1 (B2) and vda1 (A1)") {
				t.Error(err)
			}
		})
	}
	if err := Check(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("no disks: %v", err)
	}
}
