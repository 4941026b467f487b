// SPDX-License-Identifier: Apache-2.0

// Package imagetest makes files that have the form of a UKI, for tests of what
// only looks at a UKI: version, board, digest, size. Nothing boots them.
package imagetest

import (
	"bytes"
	"crypto"
	"debug/pe"
	"encoding/binary"

	"github.com/zos-node/zos/agent/pcrsig/measure"
	"github.com/zos-node/zos/image"
)

// Section is one of a PE file.
type Section struct {
	Name string
	Data []byte
}

// UKI is a PE file with the sections that a UKI has, and more. kernel stands in for
// the kernel, so that files of any size and content can be made.
func UKI(version, board string, kernel []byte, more ...Section) []byte {
	return file(append([]Section{
		{".osrel", image.OSRelease(version, board)}, {".cmdline", []byte("quiet")}, {".uname", []byte("6.12")}, {".linux", kernel}, {".initrd", []byte("initrd")},
	}, more...))
}

// Measured is a UKI whose measurement is signed by a key.
func Measured(version, board string, kernel []byte, key crypto.Signer) ([]byte, error) {
	public, err := measure.PublicKey(key)
	if err != nil {
		return nil, err
	}
	register, err := measure.UKI(bytes.NewReader(UKI(version, board, kernel, Section{".pcrpkey", public})))
	if err != nil {
		return nil, err
	}
	sig, err := register.Sign(key)
	return UKI(version, board, kernel, Section{".pcrpkey", public}, Section{".pcrsig", sig}), err
}

func file(content []Section) []byte {
	const (
		start = 0x40 // of the PE header
		align = 0x200
		first = 0x1000
	)
	le := binary.LittleEndian
	up := func(n, to int) int { return (n + to - 1) / to * to }
	var out, body bytes.Buffer
	dos := make([]byte, start)
	copy(dos, "MZ")
	le.PutUint32(dos[0x3c:], start)
	out.Write(dos)
	out.WriteString("PE\x00\x00")
	put := func(v any) {
		if err := binary.Write(&out, le, v); err != nil {
			panic(err) // memory takes everything
		}
	}
	put(pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: uint16(len(content)), SizeOfOptionalHeader: uint16(binary.Size(pe.OptionalHeader64{})), Characteristics: 0x22})
	put(pe.OptionalHeader64{Magic: 0x20b, SectionAlignment: first, FileAlignment: align, SizeOfHeaders: 2 * align, NumberOfRvaAndSizes: 16, Subsystem: 10})
	at, raw := first, 2*align
	for _, c := range content {
		h := pe.SectionHeader32{VirtualSize: uint32(len(c.Data)), VirtualAddress: uint32(at), SizeOfRawData: uint32(up(len(c.Data), align)), PointerToRawData: uint32(raw)}
		copy(h.Name[:], c.Name)
		put(h)
		body.Write(c.Data)
		body.Write(make([]byte, up(len(c.Data), align)-len(c.Data)))
		at, raw = at+up(len(c.Data), first), raw+up(len(c.Data), align)
	}
	out.Write(make([]byte, 2*align-out.Len()))
	out.Write(body.Bytes())
	return out.Bytes()
}
