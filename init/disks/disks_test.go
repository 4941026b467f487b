// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zos-node/zos/kernel/partition"
)

// put makes a disk with one partition in a made-up /sys and /dev.
func put(t *testing.T, root, disk, name string, sector int, id byte, serial string) {
	t.Helper()
	part := disk + "1"
	dir := filepath.Join(root, "devices", disk, part)
	table := make([]byte, 4*sector)
	copy(table[sector:], "EFI PART")
	binary.LittleEndian.PutUint64(table[sector+72:], 2)
	binary.LittleEndian.PutUint32(table[sector+84:], 128)
	for i := range 16 {
		table[2*sector+16+i] = byte(i) ^ id
	}
	for file, content := range map[string]string{
		filepath.Join(dir, "uevent"):                                     "DEVTYPE=partition\nPARTN=1\nPARTNAME=" + name + "\n",
		filepath.Join(root, "devices", disk, "serial"):                   serial,
		filepath.Join(root, "devices", disk, "queue/logical_block_size"): map[int]string{512: "512\n", 4096: "4096\n"}[sector],
		filepath.Join(root, "dev", disk):                                 string(table),
		filepath.Join(root, "class", "README"):                           "",
	} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Remove(filepath.Join(root, "class", "README")), os.Symlink(dir, filepath.Join(root, "class", part))); err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		partition string // of the second disk; "": there is none
		sector    int
		id        byte
		twins     bool
	}{
		"one":                 {"", 0, 0, false},
		"another build":       {partition.BootLabel, 512, 1, false},
		"somebody else's ESP": {"EFI", 512, 0, false},
		"a twin":              {partition.BootLabel, 512, 0, true},
		"a twin, 4096":        {partition.BootLabel, 4096, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, "vda", partition.BootLabel, 512, 0, "A1\n")
			if c.partition != "" {
				put(t, root, "sda", c.partition, c.sector, c.id, "B2\n")
			}
			err := Check(filepath.Join(root, "class"), filepath.Join(root, "dev"))
			if errors.Is(err, partition.ErrTwins) != c.twins || !c.twins && err != nil {
				t.Fatal(err)
			}
			if c.twins && !strings.Contains(err.Error(), "03020100-0504-0706-0809-0a0b0c0d0e0f on sda1 (B2) and vda1 (A1)") {
				t.Error(err)
			}
		})
	}
	if err := Check(filepath.Join(t.TempDir(), "none"), ""); err != nil {
		t.Errorf("no disks: %v", err)
	}
	root := t.TempDir()
	put(t, root, "vda", partition.BootLabel, 512, 0, "")
	if err := os.WriteFile(filepath.Join(root, "dev/vda"), make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Check(filepath.Join(root, "class"), filepath.Join(root, "dev")); err == nil || errors.Is(err, partition.ErrTwins) {
		t.Errorf("a table that is gone: %v", err)
	}
}
