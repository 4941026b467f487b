// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/luks"
)

func TestFind(t *testing.T) {
	sys := t.TempDir()
	add := func(name, uevent, size string) {
		dir := filepath.Join(sys, name)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "uevent"), []byte(uevent), 0o644), os.WriteFile(filepath.Join(dir, "size"), []byte(size), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{sys, filepath.Join(sys, "none")} {
		if p, err := find(dir, "/dev"); err != nil || p != nil {
			t.Errorf("no disk: %v, %v", p, err)
		}
	}
	add("vda", "DEVTYPE=disk\n", "1000\n")
	add("vda1", "DEVTYPE=partition\nPARTN=1\nPARTNAME=zos ESP\n", "100\n")
	add("vda2", "DEVTYPE=partition\nPARTN=2\nPARTNAME=zos state\n", "131072\n")
	if p, err := find(sys, "/dev"); err != nil || p == nil || *p != (partition{"/dev/vda2", 64 << 20}) {
		t.Errorf("%v, %v", p, err)
	}
	add("vdb2", "PARTNAME=zos state\n", "8\n")
	if p, err := find(sys, "/dev"); !errors.Is(err, errTwo) || p != nil || !strings.Contains(err.Error(), "/dev/vda2 and /dev/vdb2") {
		t.Errorf("two: %v, %v", p, err)
	}
}

// TestTable: what dm-crypt is told is what the header says.
func TestTable(t *testing.T) {
	if got, want := table("254:2", bytes.Repeat([]byte{0xab}, luks.KeySize)), "aes-xts-plain64 "+strings.Repeat("ab", luks.KeySize)+" 0 254:2 4096 1 sector_size:4096"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if n := sectors(64 << 20); n != 62<<11 {
		t.Errorf("%d sectors", n)
	}
	if n := sectors(64<<20 + 513); n != 62<<11 {
		t.Errorf("%d sectors of an odd partition", n)
	}
}

// TestMakeFS: e2fsck finds nothing wrong with what lands on a device full of
// noise, and there is a journal.
func TestMakeFS(t *testing.T) {
	const size = 62 << 20
	for _, tool := range []string{"e2fsck", "dumpe2fs"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIP judge e2fsprogs: %v", err)
		}
	}
	device := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(device, bytes.Repeat([]byte{0xa5}, size), 0o600); err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	if err := makeFS(device, tmp, size); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if out, err := exec.Command("e2fsck", "-fn", device).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	out, err := exec.Command("dumpe2fs", "-h", device).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "has_journal") || !strings.Contains(string(out), "Block size:               4096") {
		t.Errorf("%v: %s", err, out)
	}
}
