// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/zos-node/zos/image/fat32"
	"github.com/zos-node/zos/image/iso"
)

func boot(uki int) Boot {
	// Bytes that differ everywhere, so that a block in the wrong place shows.
	content := make([]byte, 0, uki+32)
	for i := 0; len(content) < uki; i++ {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		content = append(content, sum[:]...)
	}
	return Boot{Arch: "amd64", Version: "1", Loader: []byte("loader"), UKI: content[:uki], Seed: []byte(`{"seed":true}`),
		Keys: map[string][]byte{"PK.auth": []byte("pk"), "db.auth": []byte("db"), "KEK.auth": []byte("kek")}}
}

// medium is one kind of image file.
type medium struct {
	name   string
	sector int
	at     int64 // of the boot partition
	write  func(name string, b Boot) error
}

var mediaUnderTest = []medium{
	{"disk", 512, espStart, func(n string, b Boot) error { return Disk{Boot: b, ESPMiB: 64}.Write(n) }},
	{"disk4k", 4096, espStart, func(n string, b Boot) error { return Disk{Boot: b, ESPMiB: 64, Sector: 4096}.Write(n) }},
	{"iso", 512, iso.PartitionAt, func(n string, b Boot) error { return ISO{b}.Write(n) }},
}

func (m medium) make(t *testing.T, uki int) string {
	t.Helper()
	img := filepath.Join(t.TempDir(), m.name)
	if err := m.write(img, boot(uki)); err != nil {
		t.Fatal(err)
	}
	return img
}

func eachMedium(t *testing.T, test func(*testing.T, medium)) {
	for _, m := range mediaUnderTest {
		t.Run(m.name, func(t *testing.T) { test(t, m) })
	}
}

func TestMediaAreTheSameTwice(t *testing.T) {
	eachMedium(t, func(t *testing.T, m medium) {
		old := syscall.Umask(0o077)
		a, err := fileItem(m.make(t, 3_000_001))
		syscall.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := fileItem(m.make(t, 3_000_001)); err != nil || a != b {
			t.Errorf("%+v and %+v, %v", a, b, err)
		}
	})
}

func TestMediaReadBack(t *testing.T) {
	eachMedium(t, func(t *testing.T, m medium) {
		img := m.make(t, 1_234_567)
		f, err := os.Open(img)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		size := st.Size() - m.at - mib
		if m.name != "iso" {
			size -= StateMiB * mib
		}
		got, err := fat32.Read(f, m.at, size)
		if err != nil {
			t.Fatal(err)
		}
		files, err := boot(1_234_567).files()
		if err != nil || len(files) != 7 || len(got) != len(files) {
			t.Fatalf("%d files, want %d, %v", len(got), len(files), err)
		}
		want := map[string][]byte{}
		for _, w := range files {
			want[w.Path] = w.Content
		}
		for _, g := range got {
			if !bytes.Equal(g.Content, want[g.Path]) {
				t.Errorf("%s: %d bytes, want %d", g.Path, len(g.Content), len(want[g.Path]))
			}
		}
		if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > 6<<20 {
			t.Errorf("the image takes %d bytes on disk: not sparse", used)
		}
	})
}

func TestMediaJudges(t *testing.T) {
	eachMedium(t, func(t *testing.T, m medium) {
		img := m.make(t, 5_000_000)
		t.Run("sgdisk", func(t *testing.T) {
			sgdisk, img := judge(t, "sgdisk"), img
			if m.sector == 4096 {
				img = sectors4K(t, img)
			}
			out := sh(t, sgdisk, "-v", img)
			if !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk: %s", out)
			}
			if out := sh(t, "sgdisk", "-i", "1", img); !strings.Contains(out, "EFI system partition") || !strings.Contains(out, guid("ESP", boot(5_000_000).UKI)) {
				t.Errorf("sgdisk: %s", out)
			}
			if m.name == "iso" { // nothing is kept on one
				return
			}
			if out := sh(t, "sgdisk", "-i", "2", img); !strings.Contains(out, "Linux LUKS") || !strings.Contains(out, "'zos state'") || !strings.Contains(out, "64.0 MiB") {
				t.Errorf("sgdisk: %s", out)
			}
		})
		t.Run("fsck.vfat", func(t *testing.T) {
			fsck := judge(t, "fsck.vfat")
			out := sh(t, fsck, "-n", "-v", esp(t, img, m.at))
			for _, bad := range []string{"invalid", "differ", "wrong", "dirty", "rror", "ncorrect", "Free cluster summary"} {
				if strings.Contains(out, bad) {
					t.Errorf("fsck.vfat says %q:\n%s", bad, out)
				}
			}
		})
	})
}

// TestISOJudge: xorriso finds the boot catalogue and the partition table, has
// nothing to complain about, and takes the boot partition out as it went in.
func TestISOJudge(t *testing.T) {
	xorriso := judge(t, "xorriso")
	m := mediaUnderTest[2]
	img := m.make(t, 2_000_000)
	out := filepath.Join(t.TempDir(), "esp")
	said := sh(t, xorriso, "-abort_on", "WARNING", "-report_about", "NOTE", "-indev", img, "-report_el_torito", "plain", "-report_system_area", "plain",
		"-osirrox", "on", "-extract", "/EFI.IMG", out)
	for _, want := range []string{"El Torito boot img :   1  UEFI  y   none", "GPT                :   N  Info", "El Torito catalog  : 22  1", "Volume id    : 'ZOS'"} {
		if !strings.Contains(said, want) {
			t.Errorf("xorriso does not say %q:\n%s", want, said)
		}
	}
	for _, bad := range []string{"WARNING", "SORRY", "FAILURE", "corrupt", "FATAL"} {
		if strings.Contains(said, bad) {
			t.Errorf("xorriso says %q:\n%s", bad, said)
		}
	}
	a, err1 := fileItem(out)
	b, err2 := fileItem(esp(t, img, m.at))
	if err1 != nil || err2 != nil || a != b {
		t.Errorf("the boot partition by xorriso is %+v (%v), ours %+v (%v)", a, err1, b, err2)
	}
}

// esp cuts the partition out of the image.
func esp(t *testing.T, img string, at int64) string {
	t.Helper()
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(t.TempDir(), "esp")
	if err := os.WriteFile(p, b[at:int64(len(b))-mib], 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDiskRefuses(t *testing.T) {
	img := filepath.Join(t.TempDir(), "img")
	err := Disk{ESPMiB: 64, Boot: Boot{Arch: "amd64", UKI: make([]byte, 33<<20)}}.Write(img)
	if err == nil || !strings.Contains(err.Error(), "64 MiB") {
		t.Errorf("a UKI of half the partition: %v", err)
	}
	if err := (Disk{ESPMiB: 64, Boot: Boot{Arch: "pdp11"}}).Write(img); err == nil {
		t.Error("an architecture without UEFI was accepted")
	}
	left, err := filepath.Glob(img + "*")
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestIPXE(t *testing.T) {
	script := string(IPXE("console=tty0 quiet rdinit=/init"))
	if !strings.HasPrefix(script, "#!ipxe\n") || !strings.Contains(script, "kernel --name console=tty0 node.efi quiet rdinit=/init ||") {
		t.Error(script)
	}
	if fmt.Sprint(guid("a", nil)) == guid("b", nil) || len(guid("a", nil)) != 36 {
		t.Error(guid("a", nil))
	}
}
