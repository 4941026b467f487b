// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestExtend: SHA-256 of 32 zeros and the digest of nothing, by another
// program.
func TestExtend(t *testing.T) {
	var r Register
	r.Extend(nil)
	if got := hex.EncodeToString(r[:]); got != "1c9ecec90e28d2461650418635878a5c91e49f47586ecf75f2b0cbb94e897112" {
		t.Error(got)
	}
}

// file is a PE file with these sections, each of which holds its own name and
// " of a test".
func file(t testing.TB, sections ...string) []byte {
	t.Helper()
	const start, align = 0x40, 0x200
	out := bytes.NewBuffer(make([]byte, start))
	copy(out.Bytes(), "MZ")
	binary.LittleEndian.PutUint32(out.Bytes()[0x3c:], start)
	out.WriteString("PE\x00\x00")
	put := func(v any) {
		if err := binary.Write(out, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	put(pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: uint16(len(sections)), SizeOfOptionalHeader: uint16(binary.Size(pe.OptionalHeader64{}))})
	put(pe.OptionalHeader64{Magic: 0x20b, NumberOfRvaAndSizes: 16})
	var body []byte
	first := (start + 4 + 20 + binary.Size(pe.OptionalHeader64{}) + 40*len(sections) + align - 1) / align * align
	for i, name := range sections {
		text := name + " of a test"
		h := pe.SectionHeader32{VirtualSize: uint32(len(text)), SizeOfRawData: align, PointerToRawData: uint32(first + i*align)}
		copy(h.Name[:], name)
		put(h)
		body = append(body, append([]byte(text), make([]byte, align-len(text))...)...)
	}
	return append(append(out.Bytes(), make([]byte, first-out.Len())...), body...)
}

// TestGolden: what systemd-measure 257.13 of Debian 13 says (calculate
// --bank=sha256 --phase=:), and 252 of Debian 12 of the one that it knows.
// Where sections stand in the file does not matter.
func TestGolden(t *testing.T) {
	for sections, want := range map[string]string{
		"linux osrel cmdline initrd":                                     "9717c4d2eb11fc953ebaff0f7bfa6f8d88fa93c9e1dd2b55319c6477866e2b9b",
		"linux osrel cmdline initrd splash dtb pcrpkey":                  "3e649f5c0396f1beaa58134f5bc44e53b9fb0f91e8cc9d1243a955c93aed2ea5",
		"linux osrel cmdline initrd uname sbat pcrpkey":                  "8be864213ba50557ad2278d67ef3a5e8701732d3ac2b186d8cd23d502d940e9b",
		"linux osrel cmdline initrd ucode splash dtb uname sbat pcrpkey": "bb9ced2c45a2130e7ccbd7b42b06eac082df3f6597280a7e20090de596015979",
		"linux osrel cmdline initrd uname sbat pcrpkey pcrsig":           "8be864213ba50557ad2278d67ef3a5e8701732d3ac2b186d8cd23d502d940e9b", // the signature is no part
	} {
		all := strings.Fields(strings.ReplaceAll(" "+sections, " ", " ."))
		for range len(all) {
			all = append(all[1:], all[0])
			for _, order := range [][]string{all, reversed(all)} {
				r, err := UKI(bytes.NewReader(file(t, order...)))
				if got := hex.EncodeToString(r[:]); err != nil || got != want {
					t.Fatalf("%v: %s %v, want %s", order, got, err, want)
				}
			}
		}
	}
}

func reversed(all []string) []string {
	all = slices.Clone(all)
	slices.Reverse(all)
	return all
}

// TestRefuses: what cannot be predicted is said.
func TestRefuses(t *testing.T) {
	for says, b := range map[string][]byte{
		"no section .linux": file(t, ".osrel"),
		"stands twice":      file(t, ".linux", ".osrel", ".osrel"),
		"section .profile":  file(t, ".linux", ".profile"),
		"section .dtbauto":  file(t, ".linux", ".dtbauto"),
		"not a UKI":         []byte("MZ"),
	} {
		if _, err := UKI(bytes.NewReader(b)); !errors.Is(err, ErrUKI) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

func FuzzUKI(f *testing.F) {
	f.Add([]byte("MZ"))
	f.Add(file(f, ".linux", ".osrel"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := UKI(bytes.NewReader(b)); err == nil && len(b) < 200 {
			t.Error("a UKI out of nothing")
		}
	})
}
