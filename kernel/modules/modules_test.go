// SPDX-License-Identifier: Apache-2.0

package modules

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

// ko makes the smallest ELF file with a .modinfo section.
func ko(t *testing.T, info ...string) []byte {
	t.Helper()
	var modinfo []byte
	for _, i := range info {
		modinfo = append(append(modinfo, i...), 0)
	}
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	var b bytes.Buffer
	put := func(v any) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	h.Shoff = uint64(64 + len(modinfo) + len(names))
	put(h)
	b.Write(modinfo)
	b.Write(names)
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(modinfo))})
	put(elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(modinfo)), Size: uint64(len(names))})
	return b.Bytes()
}

func compress(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := xz.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func tree(t *testing.T) *Tree {
	tr := NewTree("6.12.0-test")
	tr.Add("kernel/a/top-mod.ko.xz", compress(t, ko(t, "name=top_mod", "depends=mid,base", "alias=pci:v00001AF4d*", "softdep=pre: soft-one absent post: later")))
	tr.Add("kernel/a/mid.ko", ko(t, "name=mid", "depends=base"))
	tr.Add("kernel/b/base.ko", ko(t, "name=base", "depends="))
	tr.Add("kernel/b/soft_one.ko", ko(t, "name=soft_one", "depends="))
	tr.Add("kernel/c/ring1.ko", ko(t, "name=ring1", "depends=ring2"))
	tr.Add("kernel/c/ring2.ko", ko(t, "name=ring2", "depends=ring1"))
	tr.Add("kernel/c/broken.ko", []byte("not an ELF file"))
	tr.Add("modules.builtin", []byte("kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio-pci.ko\n"))
	tr.Add("modules.order", []byte("ignored"))
	return tr
}

func TestChooseOrder(t *testing.T) {
	got, err := tree(t).Choose(Set{"s", []Want{
		{Name: "ext4", Load: true}, {Name: "virtio_pci", Load: true}, {Name: "not-there", Optional: true}, {Name: "top_mod", Load: true}, {Name: "base", Load: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range got {
		names = append(names, m.Name)
	}
	if want := []string{"soft_one", "base", "mid", "top_mod"}; !slices.Equal(names, want) {
		t.Errorf("order %v, want %v", names, want)
	}
	for _, m := range got {
		if strings.HasSuffix(m.Path, ".xz") || !bytes.HasPrefix(m.Data, []byte("\x7fELF")) {
			t.Errorf("%s is not uncompressed: %s", m.Name, m.Path)
		}
		if want := m.Name == "top_mod" || m.Name == "base"; m.Load != want {
			t.Errorf("%s: load %v", m.Name, m.Load)
		}
	}
	var packaged []Module
	for _, m := range got {
		p := m.Packaged()
		if plain, err := Decompress(p.Path, p.Data); err != nil || !bytes.Equal(plain, m.Data) || strings.TrimSuffix(p.Path, ".xz") != m.Path {
			t.Errorf("%s as packaged: %s, %v", m.Name, p.Path, err)
		}
		packaged = append(packaged, p)
	}
	if want := "kernel/a/top-mod.ko.xz: kernel/a/mid.ko kernel/b/base.ko\n"; !strings.Contains(string(Index(packaged, nil)["modules.dep"]), want) {
		t.Errorf("modules.dep of packaged modules lacks %q", want)
	}
	files := Index(got, tree(t).BuiltinNames())
	if want := "kernel/a/top-mod.ko: kernel/a/mid.ko kernel/b/base.ko\n"; !strings.Contains(string(files["modules.dep"]), want) {
		t.Errorf("modules.dep lacks %q:\n%s", want, files["modules.dep"])
	}
	for name, want := range map[string]string{
		"modules.alias": "alias pci:v00001AF4d* top_mod\n", "modules.softdep": "softdep top_mod pre: soft_one absent\n",
		"modules.load": "base\ntop_mod\n", "modules.builtin": "kernel/ext4.ko\nkernel/virtio_pci.ko\n",
	} {
		if string(files[name]) != want {
			t.Errorf("%s = %q, want %q", name, files[name], want)
		}
	}
}

// TestPlain: what a boot waits for is not unpacked first, nor what that needs.
func TestPlain(t *testing.T) {
	tr := tree(t)
	tr.Add("kernel/b/base.ko.xz", compress(t, ko(t, "name=base", "depends=")))
	tr.Add("kernel/b/soft_one.ko.xz", compress(t, ko(t, "name=soft_one", "depends=")))
	got, err := tr.Choose(Set{"s", []Want{{Name: "mid", Plain: true}, {Name: "top_mod"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range got {
		packed := strings.HasSuffix(m.Packaged().Path, ".xz")
		if want := m.Name == "top_mod" || m.Name == "soft_one"; packed != want {
			t.Errorf("%s: compressed %v", m.Name, packed)
		}
	}
}

func TestChooseRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		want string
		is   error
	}{
		"absent": {"nowhere", ErrMissing}, "broken": {"broken", ErrNoModule}, "ring": {"ring1", nil},
	} {
		_, err := tree(t).Choose(Set{"s", []Want{{Name: c.want, Why: "a reason"}}})
		if err == nil || (c.is != nil && !errors.Is(err, c.is)) || !strings.Contains(err.Error(), "a reason") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSetsAreWellFormed(t *testing.T) {
	for _, s := range Sets() {
		seen := map[string]bool{}
		for _, w := range s.Wants {
			if w.Why == "" || seen[Norm(w.Name)] {
				t.Errorf("%s: %s has no reason or stands twice", s.Name, w.Name)
			}
			seen[Norm(w.Name)] = true
		}
		if got, ok := Named(s.Name); !ok || len(got.Wants) != len(s.Wants) {
			t.Errorf("%s: not found by name", s.Name)
		}
	}
	if _, ok := Named("nothing"); ok {
		t.Error("found a set that is not there")
	}
}

func FuzzReadInfo(f *testing.F) {
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ReadInfo(b); err != nil && !errors.Is(err, ErrNoModule) {
			t.Errorf("untyped error: %v", err)
		}
	})
}

// TestEverySetHasReasons: a set is a table that people read.
func TestEverySetHasReasons(t *testing.T) {
	names := map[string]bool{}
	for _, s := range Sets() {
		if names[s.Name] {
			t.Errorf("set %s stands twice", s.Name)
		}
		names[s.Name] = true
		for _, w := range s.Wants {
			if w.Why == "" || Norm(w.Name) == "" {
				t.Errorf("set %s: %+v", s.Name, w)
			}
		}
	}
}
