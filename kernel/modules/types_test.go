// SPDX-License-Identifier: Apache-2.0

package modules

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"testing"
)

// object is an ELF file with empty sections of these names.
func object(t *testing.T, names ...string) []byte {
	t.Helper()
	const header, entry = 64, 64
	table := []byte{0}
	sections := []elf.Section64{{}}
	for _, n := range append(names, ".shstrtab") {
		sections = append(sections, elf.Section64{Name: uint32(len(table)), Type: uint32(elf.SHT_PROGBITS), Off: header})
		table = append(append(table, n...), 0)
	}
	last := &sections[len(sections)-1]
	last.Type, last.Size = uint32(elf.SHT_STRTAB), uint64(len(table))
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Ehsize: header, Shentsize: entry,
		Shnum: uint16(len(sections)), Shstrndx: uint16(len(sections) - 1), Shoff: uint64(header + len(table))}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	var b bytes.Buffer
	for _, part := range []any{h, table, sections} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func names(t *testing.T, b []byte) map[string]bool {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, s := range f.Sections {
		all[s.Name] = true
	}
	return all
}

func TestWithoutTypes(t *testing.T) {
	in := object(t, ".text", ".BTF", ".BTF_ids", ".data")
	before := bytes.Clone(in)
	out, err := WithoutTypes(in)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(in, before) {
		t.Error("it changed what it was given")
	}
	got := names(t, out)
	for _, want := range []string{".text", ".BTF_ids", ".data", hidden} {
		if !got[want] {
			t.Errorf("no section %s in %v", want, got)
		}
	}
	if got[btf] {
		t.Error("the types are still found")
	}
	if len(out) != len(in) {
		t.Errorf("%d bytes became %d", len(in), len(out))
	}
	none := object(t, ".text")
	if out, err := WithoutTypes(none); err != nil || !bytes.Equal(out, none) {
		t.Errorf("a module without them: %v", err)
	}
	if _, err := WithoutTypes([]byte("junk")); err == nil {
		t.Error("junk is taken for a module")
	}
}
