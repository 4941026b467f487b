// SPDX-License-Identifier: Apache-2.0

package fat32

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// noise differs everywhere, so that a block in the wrong place shows.
func noise(n int) []byte {
	b := make([]byte, 0, n+32)
	for i := 0; len(b) < n; i++ {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		b = append(b, sum[:]...)
	}
	return b[:n]
}

func sample() []File {
	return []File{
		{"/EFI/BOOT/BOOTX64.EFI", noise(1_234_567)},
		{"/EFI/Linux/zos-0.1.efi", noise(3_000_001)},
		{"/EFI/Linux/zos-0.1-second one+3.efi"[:22] + "-b+3.efi", noise(4096)},
		{"/loader/loader.conf", []byte("timeout 0\n")},
		{"/zos/seed.json", []byte("{}")},
		{"/zos/empty", nil},
		{"/a.rather.long.name.with.many.dots", []byte("x")},
	}
}

func volume(t *testing.T, sector int, start int64) (string, Volume) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fat")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v := Volume{Size: MinSize(sector), Sector: sector, Start: start, ID: 0x7a6f7300, Label: "ZOS", Files: sample()}
	if err := f.Truncate(start + v.Size); err != nil {
		t.Fatal(err)
	}
	if err := v.Write(f); err != nil {
		t.Fatal(err)
	}
	return name, v
}

func TestRoundTrip(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		for _, start := range []int64{0, 1 << 20} {
			name, v := volume(t, sector, start)
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, err := Read(f, start, v.Size)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string][]byte{}
			for _, s := range v.Files {
				want[s.Path] = s.Content
			}
			for _, g := range got {
				if w, ok := want[g.Path]; !ok || !bytes.Equal(w, g.Content) {
					t.Errorf("sector %d: %s: %d bytes, want %d (%v)", sector, g.Path, len(g.Content), len(w), ok)
				}
				delete(want, g.Path)
			}
			for p := range want {
				t.Errorf("sector %d: %s is gone", sector, p)
			}
		}
	}
}

// TestJudges: dosfstools checks the structure, mtools reads the files.
func TestJudges(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			name, v := volume(t, sector, 0)
			out, err := exec.Command(tool(t, "fsck.vfat"), "-n", "-v", name).CombinedOutput()
			if err != nil {
				t.Fatalf("fsck.vfat: %v\n%s", err, out)
			}
			for _, bad := range []string{"invalid", "differ", "wrong", "dirty", "rror", "ncorrect", "Free cluster summary", "Bad short"} {
				if strings.Contains(string(out), bad) {
					t.Errorf("fsck.vfat says %q:\n%s", bad, out)
				}
			}
			for _, f := range v.Files {
				out, err := exec.Command(tool(t, "mcopy"), "-i", name, "::"+f.Path, "-").Output()
				if err != nil || !bytes.Equal(out, f.Content) {
					t.Errorf("mcopy %s: %d bytes, want %d: %v", f.Path, len(out), len(f.Content), err)
				}
			}
		})
	}
}

func tool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIP judge %s: not installed", name)
	}
	return p
}

func TestOrderOfFilesDoesNotMatter(t *testing.T) {
	v := Volume{Size: MinSize(512), Sector: 512, Files: sample()}
	var one, two memory
	if err := v.Write(&one); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(v.Files)
	if err := v.Write(&two); err != nil || !bytes.Equal(one.b, two.b) {
		t.Errorf("the order of files changes the volume: %v", err)
	}
}

// memory grows as it is written.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(m.b) {
		m.b = append(m.b, make([]byte, need-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

func TestRefuses(t *testing.T) {
	for name, v := range map[string]Volume{
		"too small":   {Size: 1 << 20, Sector: 512},
		"odd sector":  {Size: 64 << 20, Sector: 1024},
		"relative":    {Size: 64 << 20, Sector: 512, Files: []File{{Path: "a"}}},
		"dots":        {Size: 64 << 20, Sector: 512, Files: []File{{Path: "/../a"}}},
		"twice":       {Size: 64 << 20, Sector: 512, Files: []File{{Path: "/a"}, {Path: "/A"}}},
		"file as dir": {Size: 64 << 20, Sector: 512, Files: []File{{Path: "/a"}, {Path: "/a/b"}}},
		"umlaut":      {Size: 64 << 20, Sector: 512, Files: []File{{Path: "/ä"}}},
	} {
		if err := v.Write(&memory{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	v := Volume{Size: MinSize(512), Sector: 512, Files: []File{{"/a", make([]byte, 60<<20)}}}
	if err := v.Write(&memory{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too much: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	v := Volume{Size: MinSize(512), Sector: 512, Files: []File{{"/EFI/a-long-name.efi", []byte("x")}, {"/B", []byte("y")}}}
	var m memory
	if err := v.Write(&m); err != nil {
		f.Fatal(err)
	}
	f.Add(m.b[:64<<10])
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := Read(bytes.NewReader(b), 0, 1<<20)
		if err == nil && len(b) < 512 {
			t.Errorf("%d files out of nothing", len(files))
		}
	})
}
