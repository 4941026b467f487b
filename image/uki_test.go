// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"debug/pe"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func stub(t *testing.T) []byte {
	t.Helper()
	e, err := parts(t).EFI(context.Background())
	if err != nil {
		t.Skipf("SKIP systemd's stub: %v", err)
	}
	return e.Stub
}

func sample(stub []byte) UKI {
	return UKI{
		Stub: stub, OSRel: OSRelease("1", "test"), Cmdline: "console=ttyS0 quiet", Uname: "6.12",
		Linux: bytes.Repeat([]byte("kernel"), 12345), Initrd: bytes.Repeat([]byte("initrd"), 54321),
	}
}

func sections(t *testing.T, b []byte) (map[string][]byte, map[string]uint32, []string) {
	t.Helper()
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	content, at := map[string][]byte{}, map[string]uint32{}
	var order []string
	for _, s := range f.Sections {
		d, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		content[s.Name], at[s.Name] = d[:min(uint32(len(d)), s.VirtualSize)], s.VirtualAddress
		order = append(order, s.Name)
	}
	return content, at, order
}

// TestUKIAgainstObjcopy: binutils, told the same addresses, makes a file with
// the same sections, contents and places.
func TestUKIAgainstObjcopy(t *testing.T) {
	objcopy := judge(t, "objcopy")
	u := sample(stub(t))
	ours, err := u.Build()
	if err != nil {
		t.Fatal(err)
	}
	content, at, order := sections(t, ours)

	dir := t.TempDir()
	stubFile, out := filepath.Join(dir, "stub"), filepath.Join(dir, "theirs.efi")
	if err := os.WriteFile(stubFile, u.Stub, 0o644); err != nil {
		t.Fatal(err)
	}
	base := header(t, u.Stub).ImageBase
	var args []string
	for _, s := range u.sections() {
		file := filepath.Join(dir, s.name[1:])
		if err := os.WriteFile(file, s.content, 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--add-section", s.name+"="+file, "--set-section-flags", s.name+"=data,readonly",
			"--change-section-vma", fmt.Sprintf("%s=%#x", s.name, base+uint64(at[s.name])))
	}
	sh(t, objcopy, append(args, stubFile, out)...)
	theirs, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	tc, ta, torder := sections(t, theirs)
	if fmt.Sprint(order) != fmt.Sprint(torder) {
		t.Errorf("sections %v, objcopy has %v", order, torder)
	}
	delete(tc, ".sbat") // objcopy leaves the stub's as it is
	for name, want := range tc {
		// objcopy pads a section's length to the file's alignment.
		if !bytes.HasPrefix(want, content[name]) || len(bytes.TrimRight(want[len(content[name]):], "\x00")) != 0 {
			t.Errorf("%s: %d bytes, objcopy has %d others", name, len(content[name]), len(want))
		}
		if at[name] != ta[name] {
			t.Errorf("%s at %#x, objcopy has %#x", name, at[name], ta[name])
		}
	}
	mine := filepath.Join(dir, "ours.efi")
	if err := os.WriteFile(mine, ours, 0o644); err != nil {
		t.Fatal(err)
	}
	dump := sh(t, judge(t, "objdump"), "-h", mine)
	for _, name := range order {
		if !strings.Contains(dump, name) {
			t.Errorf("objdump does not see %s:\n%s", name, dump)
		}
	}
}

func header(t *testing.T, b []byte) *pe.OptionalHeader64 {
	t.Helper()
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return f.OptionalHeader.(*pe.OptionalHeader64)
}

// TestUKICanBeSigned: the Secure Boot tools take it, sign it and find it whole.
func TestUKICanBeSigned(t *testing.T) {
	sbsign, sbverify, openssl := judge(t, "sbsign"), judge(t, "sbverify"), judge(t, "openssl")
	b, err := sample(stub(t)).Build()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := func(n string) string { return filepath.Join(dir, n) }
	if err := os.WriteFile(p("uki"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	sh(t, openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", p("key"), "-out", p("cert"), "-subj", "/CN=test", "-days", "1")
	if out := sh(t, sbsign, "--key", p("key"), "--cert", p("cert"), "--output", p("signed"), p("uki")); strings.Contains(out, "warning") {
		t.Errorf("sbsign: %s", out)
	}
	sh(t, sbverify, "--cert", p("cert"), p("signed"))
}

func TestUKIReadBackAndSame(t *testing.T) {
	u := sample(stub(t))
	one, err := u.Build()
	if err != nil {
		t.Fatal(err)
	}
	two, err := u.Build()
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("not the same twice: %v", err)
	}
	got, err := ReadUKI(one)
	if err != nil || got.Cmdline != u.Cmdline || got.Uname != u.Uname || !bytes.Equal(got.Linux, u.Linux) || !bytes.Equal(got.Initrd, u.Initrd) || !bytes.Equal(got.OSRel, u.OSRel) {
		t.Errorf("read back: %v", err)
	}
	f, err := pe.NewFile(bytes.NewReader(one))
	if err != nil {
		t.Fatal(err)
	}
	h := f.OptionalHeader.(*pe.OptionalHeader64)
	last := f.Sections[len(f.Sections)-1]
	if f.FileHeader.TimeDateStamp != 0 || h.SizeOfImage != align(last.VirtualAddress+last.VirtualSize, h.SectionAlignment) || int(last.Offset+last.Size) != len(one) {
		t.Errorf("time %d, image %#x, file %d", f.FileHeader.TimeDateStamp, h.SizeOfImage, len(one))
	}
}

func TestUKIRefuses(t *testing.T) {
	s := stub(t)
	u := sample(s)
	built, err := u.Build()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*UKI){
		"no stub":      func(u *UKI) { u.Stub = nil },
		"half a stub":  func(u *UKI) { u.Stub = s[:len(s)/2] },
		"UKI as stub":  func(u *UKI) { u.Stub = built },
		"no kernel":    func(u *UKI) { u.Linux = nil },
		"no initramfs": func(u *UKI) { u.Initrd = nil },
		"two lines":    func(u *UKI) { u.Cmdline = "a\nb" },
		"empty line":   func(u *UKI) { u.Cmdline = "" },
	} {
		bad := u
		change(&bad)
		if _, err := bad.Build(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := (UKI{Stub: []byte("MZ"), OSRel: []byte("x")}).Build(); !errors.Is(err, ErrStub) {
		t.Errorf("untyped: %v", err)
	}
}

func FuzzReadUKI(f *testing.F) {
	f.Add([]byte("MZ"))
	f.Add(append([]byte("MZ"), make([]byte, 200)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ReadUKI(b); err == nil && len(b) < 512 {
			t.Error("a UKI out of nothing")
		}
		if _, err := (UKI{Stub: b, OSRel: b, Cmdline: "x", Uname: "x", Linux: b, Initrd: b}).Build(); err == nil && len(b) < 512 {
			t.Error("a stub out of nothing")
		}
	})
}
