// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/diskfs/go-diskfs"
)

func disk(t *testing.T, name string, uki int) string {
	t.Helper()
	img := filepath.Join(t.TempDir(), name)
	// Bytes that differ everywhere, so that a block in the wrong place shows.
	content := make([]byte, 0, uki+32)
	for i := 0; len(content) < uki; i++ {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		content = append(content, sum[:]...)
	}
	if err := (Disk{ESPMiB: 64, UKI: content[:uki], Seed: []byte(`{"seed":true}`)}).Write(img); err != nil {
		t.Fatal(err)
	}
	return img
}

func TestDiskIsTheSameTwice(t *testing.T) {
	a, err := os.ReadFile(disk(t, "a", 3_000_001))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(disk(t, "b", 3_000_001))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		for i := range a {
			if a[i] != b[i] {
				t.Fatalf("first difference at byte %#x", i)
			}
		}
	}
}

func TestDiskReadBack(t *testing.T) {
	img := disk(t, "a", 1_234_567)
	d, err := diskfs.Open(img, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fs, err := d.GetFilesystem(1)
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{bootPath: 1_234_567, seedPath: 13} {
		f, err := fs.OpenFile(name, os.O_RDONLY)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(f); err != nil || b.Len() != size {
			t.Errorf("%s: %d bytes, %v", name, b.Len(), err)
		}
	}
	st, err := os.Stat(img)
	if err != nil {
		t.Fatal(err)
	}
	if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > 6<<20 {
		t.Errorf("the image takes %d bytes on disk: not sparse", used)
	}
}

func TestDiskJudges(t *testing.T) {
	img := disk(t, "a", 5_000_000)
	t.Run("sgdisk", func(t *testing.T) {
		out := sh(t, judge(t, "sgdisk"), "-v", img)
		if !strings.Contains(out, "No problems found") {
			t.Errorf("sgdisk: %s", out)
		}
		if out := sh(t, "sgdisk", "-i", "1", img); !strings.Contains(out, "EFI system partition") || !strings.Contains(out, espGUID) {
			t.Errorf("sgdisk: %s", out)
		}
	})
	t.Run("fsck.vfat", func(t *testing.T) {
		fsck := judge(t, "fsck.vfat")
		out := sh(t, fsck, "-n", "-v", esp(t, img))
		for _, bad := range []string{"invalid", "differ", "wrong", "dirty", "rror", "ncorrect", "Free cluster summary"} {
			if strings.Contains(out, bad) {
				t.Errorf("fsck.vfat says %q:\n%s", bad, out)
			}
		}
	})
}

// esp cuts the partition out of the image.
func esp(t *testing.T, img string) string {
	t.Helper()
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(t.TempDir(), "esp")
	if err := os.WriteFile(p, b[espStart:int64(len(b))-mib], 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDiskRefuses(t *testing.T) {
	img := filepath.Join(t.TempDir(), "img")
	err := Disk{ESPMiB: 64, UKI: make([]byte, 33<<20)}.Write(img)
	if err == nil || !strings.Contains(err.Error(), "64 MiB") {
		t.Errorf("a UKI of half the partition: %v", err)
	}
	left, err := filepath.Glob(img + "*")
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func FuzzTidyFAT(f *testing.F) {
	f.Add(make([]byte, 4096))
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(t.TempDir(), "fat")
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if err := tidyFAT(file, 0); err == nil && len(b) < 1024 {
			t.Error("a file system out of nothing")
		}
	})
}
