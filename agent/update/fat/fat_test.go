// SPDX-License-Identifier: Apache-2.0

package fat_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/update/fat"
	"github.com/zos-node/zos/agent/update/fat/fattest"
	"github.com/zos-node/zos/image/fat32"
)

func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// memory holds what was written, and reads as zeros elsewhere.
type memory struct {
	size   int64
	blocks map[int64][]byte
}

const block = 4096

func (m *memory) WriteAt(b []byte, at int64) (int, error) {
	for i := range b {
		n := at + int64(i)
		if m.blocks[n/block] == nil {
			m.blocks[n/block] = make([]byte, block)
		}
		m.blocks[n/block][n%block] = b[i]
	}
	return len(b), nil
}

func (m *memory) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > m.size {
		return 0, io.EOF
	}
	clear(b)
	for i := 0; i < len(b); {
		n := at + int64(i)
		step := min(int(block-n%block), len(b)-i)
		if have := m.blocks[n/block]; have != nil {
			copy(b[i:i+step], have[n%block:])
		}
		i += step
	}
	return len(b), nil
}

// volume is a boot partition as image/fat32 writes it.
func volume(t testing.TB, sector int, files map[string][]byte) *memory {
	t.Helper()
	m := &memory{fat32.MinSize(sector), map[int64][]byte{}}
	v := fat32.Volume{Size: m.size, Sector: sector, ID: 1, Label: "ZOS"}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		v.Files = append(v.Files, fat32.File{Path: p, Content: files[p]})
	}
	if err := v.Write(m); err != nil {
		t.Fatal(err)
	}
	return m
}

// read is what an independent reader finds.
func read(t testing.TB, d io.ReaderAt, size int64) map[string][]byte {
	t.Helper()
	all, err := fat32.Read(d, 0, size)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, f := range all {
		out[f.Path] = f.Content
	}
	return out
}

// step is one thing that is done to a volume, and what comes of it.
type step struct {
	name  string
	do    func(*fat.Volume) error
	model func(map[string][]byte)
	// free is the file whose contents may be anything while it happens.
	free string
}

func over(path string, n int, seed uint64) step {
	b := noise(n, seed)
	return step{fmt.Sprintf("overwrite %s with %d bytes", path, n), func(v *fat.Volume) error { return v.Overwrite(path, bytes.NewReader(b), int64(n)) },
		func(m map[string][]byte) { m["/"+path] = b }, "/" + path}
}

func rename(from, to string) step {
	return step{"rename " + from + " to " + to, func(v *fat.Volume) error { return v.Rename(from, to) },
		func(m map[string][]byte) { m["/"+to] = m["/"+from]; delete(m, "/"+from) }, ""}
}

func remove(path string) step {
	return step{"remove " + path, func(v *fat.Volume) error { return v.Remove(path) }, func(m map[string][]byte) { delete(m, "/"+path) }, ""}
}

// scenario is what an update does, and more: growing and shrinking, names in
// several sectors, a folder that grows.
func scenario() []step {
	steps := []step{
		over("EFI/Linux/zos-next.part", 90_000, 1), rename("EFI/Linux/zos-next.part", "EFI/Linux/zos-1.1+3.efi"),
		rename("EFI/Linux/zos-1.1+3.efi", "EFI/Linux/zos-1.1.efi"), rename("EFI/Linux/zos-1.0.efi", "EFI/Linux/zos-next.part"),
		over("EFI/Linux/zos-next.part", 120_001, 2), over("EFI/Linux/zos-next.part", 40_000, 3), over("EFI/Linux/zos-next.part", 0, 4),
		over("EFI/Linux/zos-next.part", 512, 5), over("loader/a.new", 100, 6), rename("loader/a.new", "loader/a.json"),
		over("loader/a.new", 1200, 7), rename("loader/a.new", "loader/a.json"), remove("loader/a.json"), remove("EFI/Linux/zos-next.part"),
	}
	for i := range 8 {
		steps = append(steps, over(fmt.Sprintf("loader/a rather long name, number %d, for a folder that grows.txt", i), 10, uint64(i)))
	}
	last := "loader/a rather long name, number 7, for a folder that grows.txt"
	return append(steps, rename(last, "loader/another name that stands in more than one sector, perhaps.txt"), rename("loader/another name that stands in more than one sector, perhaps.txt", "loader/b"), remove("loader/b"))
}

func start(t testing.TB, sector int) (*memory, map[string][]byte) {
	files := map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": noise(5000, 10), "/EFI/Linux/zos-1.0.efi": noise(70_000, 11), "/loader/loader.conf": []byte("timeout 0\n"), "/zos/seed.json": noise(700, 12)}
	return volume(t, sector, files), files
}

func mine(p string) bool {
	return strings.HasPrefix(p, "EFI/Linux/zos-") || strings.HasPrefix(p, "loader/")
}

// TestScenario: every step does what it says, in sectors of both sizes, and
// leaves nothing for Repair or fsck.vfat.
func TestScenario(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		base, want := start(t, sector)
		d := fattest.New(base)
		for _, s := range scenario() {
			v, err := fat.Open(d)
			if err == nil {
				err = s.do(v)
			}
			if err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			want = maps.Clone(want)
			s.model(want)
			got := read(t, d, base.size)
			if !maps.EqualFunc(got, want, bytes.Equal) {
				t.Fatalf("after %s: %v, want %v", s.name, sizes(got), sizes(want))
			}
			for p, b := range want {
				r, err := v.Open(p[1:])
				if err != nil {
					t.Fatal(err)
				}
				if mine, err := io.ReadAll(r); err != nil || !bytes.Equal(mine, b) {
					t.Fatalf("%s reads otherwise: %v", p, err)
				}
			}
			fattest.Fsck(t, "after all", d, base.size)
			if did, err := v.Repair(mine); err != nil || len(did) > 0 {
				t.Fatalf("after %s: Repair did %v, %v", s.name, did, err)
			}
		}
	}
}

func sizes(m map[string][]byte) string {
	var all []string
	for p, b := range m {
		all = append(all, fmt.Sprintf("%s (%d)", p, len(b)))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// TestPowerCuts cuts the power at every single write and sync of the scenario,
// in several ways each. Whatever the step was, an independent reader finds
// every other file as it was; Repair makes fsck.vfat content; what was to
// happen has happened or not, and can be done again.
func TestPowerCuts(t *testing.T) {
	base, files := start(t, 512)
	d := fattest.New(base)
	cuts, judged := 0, 0
	for n, s := range scenario() {
		after := maps.Clone(files)
		s.model(after)
		v, err := fat.Open(d)
		if err != nil {
			t.Fatal(err)
		}
		whole := d.Cut(func() bool { return true })
		for left := 0; ; left++ {
			cut := whole.Cut(func() bool { return true })
			cut.Left = left
			if v, err = fat.Open(cut); err != nil {
				t.Fatal(err)
			}
			err := s.do(v)
			if err == nil {
				break
			}
			if !errors.Is(err, fattest.ErrCut) {
				t.Fatalf("%s: %v", s.name, err)
			}
			for way, keep := range fattest.Ways(uint64(n*1000+left), 2) {
				cuts++
				dead := cut.Cut(keep)
				what := fmt.Sprintf("%s, cut after %d writes, way %d", s.name, left, way)
				bootable(t, what, dead, base.size, files, after, s)
				v, err := fat.Open(dead)
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if _, err := v.Repair(mine); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				got := bootable(t, what+", repaired", dead, base.size, files, after, s)
				delete(got, s.free)
				for _, p := range []map[string][]byte{files, after} {
					want := maps.Clone(p)
					delete(want, s.free)
					if maps.EqualFunc(got, want, bytes.Equal) {
						got = nil
						break
					}
				}
				if got != nil {
					t.Fatalf("%s: there is %s, neither what was before nor what was to be", what, sizes(got))
				}
				if v, err = fat.Open(dead); err != nil {
					t.Fatal(err)
				}
				if did, err := v.Repair(mine); err != nil || len(did) > 0 {
					t.Fatalf("%s: a second Repair did %v, %v", what, did, err)
				}
				if (left+way)%8 == 0 {
					fattest.Fsck(t, "repaired", dead, base.size)
					judged++
				}
			}
		}
		files = after
		if err := errors.Join(func() error { v, err = fat.Open(d); return err }(), s.do(v)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d cuts, fsck.vfat looked at %d of them", cuts, judged)
	if cuts < 500 {
		t.Errorf("only %d cuts: nothing was cut", cuts)
	}
}

// bootable holds what an independent reader finds: all files that the step has
// nothing to do with, byte for byte. It reads names that a cut has doubled.
func bootable(t *testing.T, what string, d io.ReaderAt, size int64, before, after map[string][]byte, s step) map[string][]byte {
	t.Helper()
	all, err := fat32.Read(d, 0, size)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	got := map[string][]byte{}
	for _, f := range all {
		got[f.Path] = f.Content
	}
	for p, b := range before {
		if now, stays := after[p]; stays && bytes.Equal(now, b) && p != s.free && !bytes.Equal(got[p], b) {
			t.Fatalf("%s: %s is gone or altered; there is %s", what, p, sizes(got))
		}
	}
	return got
}

// TestRefuses: nothing is changed by what cannot be done.
func TestRefuses(t *testing.T) {
	base, want := start(t, 512)
	d := fattest.New(base)
	v, err := fat.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		do   func() error
		want error
	}{
		"no room":           {func() error { return v.Overwrite("loader/x", bytes.NewReader(nil), v.Free()+1) }, fat.ErrFull},
		"no folder":         {func() error { return v.Overwrite("none/x", bytes.NewReader(nil), 0) }, fs.ErrNotExist},
		"a folder":          {func() error { return v.Overwrite("loader", bytes.NewReader(nil), 0) }, fs.ErrInvalid},
		"another folder":    {func() error { return v.Rename("loader/loader.conf", "EFI/x") }, fs.ErrInvalid},
		"onto itself":       {func() error { return v.Rename("loader/loader.conf", "LOADER/LOADER.CONF") }, fs.ErrInvalid},
		"not there":         {func() error { return v.Rename("loader/x", "loader/y") }, fs.ErrNotExist},
		"remove: not there": {func() error { return v.Remove("loader/x") }, fs.ErrNotExist},
		"remove a folder":   {func() error { return v.Remove("EFI/Linux") }, fs.ErrNotExist},
		"read: not there":   {func() error { _, err := v.Open("loader/x"); return err }, fs.ErrNotExist},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if d.Calls != 0 {
		t.Errorf("%d writes", d.Calls)
	}
	if got := read(t, d, base.size); !maps.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("there is %s", sizes(got))
	}
	for _, bad := range [][]byte{make([]byte, 4096), []byte("short")} {
		if _, err := fat.Open(fattest.New(bytes.NewReader(bad))); err == nil {
			t.Error("opened")
		}
	}
}

// TestRepairLeavesOthersAlone: what is broken and not ours is an error, and
// nothing is written.
func TestRepairLeavesOthersAlone(t *testing.T) {
	base, _ := start(t, 512)
	all := bytes.NewBuffer(nil)
	if _, err := io.Copy(all, io.NewSectionReader(base, 0, 1<<21)); err != nil {
		t.Fatal(err)
	}
	d := fattest.New(base)
	v, err := fat.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Repair(func(string) bool { return false }); err != nil || d.Calls != 0 {
		t.Fatalf("a whole volume: %v, %d writes", err, d.Calls)
	}
	// The first of the seed's clusters is marked free in both tables.
	b := make([]byte, 512)
	reserved, perFAT := int64(base.blocks[0][14])|int64(base.blocks[0][15])<<8, int64(base.blocks[0][36])|int64(base.blocks[0][37])<<8
	last := int64(0)
	for at := int64(0); at < perFAT; at++ {
		if _, err := base.ReadAt(b, (reserved+at)*512); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < 512; i += 4 {
			if b[i]|b[i+1]|b[i+2] != 0 {
				last = at*128 + int64(i)/4 - 1 // the first of its two clusters
			}
		}
	}
	for n := range int64(2) {
		at := (reserved + n*perFAT + last/128) * 512
		if _, err := base.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		clear(b[last%128*4 : last%128*4+4])
		if _, err := d.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	calls := d.Calls
	if v, err = fat.Open(d); err != nil {
		t.Fatal(err)
	}
	if did, err := v.Repair(mine); !errors.Is(err, fat.ErrFormat) || d.Calls != calls {
		t.Errorf("Repair did %v, %v, with %d writes", did, err, d.Calls-calls)
	}
	if did, err := v.Repair(func(string) bool { return true }); err != nil || len(did) == 0 {
		t.Errorf("Repair did %v, %v", did, err)
	}
}

// FuzzOpen: whatever the disk holds, reading and repairing end, and Repair
// leaves what it would not touch again.
func FuzzOpen(f *testing.F) {
	base, _ := start(f, 512)
	head := make([]byte, 1<<16)
	if _, err := base.ReadAt(head, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(head[:512], uint32(40*512), byte(7))
	f.Add(head[:512], uint32(600*512), byte(0xff))
	f.Fuzz(func(t *testing.T, boot []byte, at uint32, flip byte) {
		base, _ := start(t, 512)
		d := fattest.New(base)
		first := make([]byte, 512)
		copy(first, boot)
		b := make([]byte, 512)
		where := int64(at) % (base.size - 512) / 512 * 512
		if _, err := d.ReadAt(b, where); err != nil {
			t.Fatal(err)
		}
		b[at%512] ^= flip
		for off, sector := range map[int64][]byte{0: first, where: b} {
			if _, err := d.WriteAt(sector, off); err != nil {
				t.Fatal(err)
			}
		}
		v, err := fat.Open(d)
		if err != nil {
			return
		}
		if _, err := v.List("EFI/Linux"); err != nil {
			return
		}
		if _, err := v.Repair(func(string) bool { return true }); err != nil {
			return
		}
		if v, err = fat.Open(d); err != nil {
			t.Fatal(err)
		}
		if did, err := v.Repair(func(string) bool { return true }); err != nil || len(did) > 0 {
			t.Errorf("a second Repair did %v, %v", did, err)
		}
	})
}
