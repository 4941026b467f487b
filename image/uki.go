// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrStub says that the UEFI stub is not what we can build on.
var ErrStub = errors.New("unusable UEFI stub")

// UKI is a unified kernel image: systemd's stub, which the firmware starts as
// a PE program, with everything that it boots as further sections.
type UKI struct {
	Stub    []byte
	OSRel   []byte // os-release text
	Cmdline string
	Uname   string
	Linux   []byte
	Initrd  []byte
	// PCRKey and PCRSig are the key that signs measurements (PEM) and its
	// signature over this UKI's (systemd's JSON); nil: the UKI has none.
	PCRKey, PCRSig []byte
}

// endOfOptions ends what the kernel reads of a command line (parse_args).
const endOfOptions = "--"

// Closed is a command line to which nothing can be added: systemd's stub
// appends words that it finds in SMBIOS even under Secure Boot, and without
// this mark "rdinit=/bin/other" would start another program of the image in
// init's place. Behind it, words are init's, which refuses them; x86's own few
// early options (nokaslr) are looked for in the whole line, and end there too.
func Closed(cmdline string) string { return cmdline + " " + endOfOptions }

type section struct {
	name    string
	content []byte
}

// sections in the order of systemd's ukify.
func (u UKI) sections() []section {
	all := []section{
		{".osrel", u.OSRel},
		{".cmdline", []byte(u.Cmdline)},
		{".uname", []byte(u.Uname)},
	}
	if u.PCRKey != nil {
		all = append(all, section{".pcrpkey", u.PCRKey})
	}
	all = append(all, section{".linux", u.Linux}, section{".initrd", u.Initrd})
	if u.PCRSig != nil {
		all = append(all, section{".pcrsig", u.PCRSig})
	}
	return all
}

const (
	peSectionHeader = 40
	peReadOnlyData  = pe.IMAGE_SCN_CNT_INITIALIZED_DATA | pe.IMAGE_SCN_MEM_READ
	peReadOnlyCode  = pe.IMAGE_SCN_CNT_CODE | pe.IMAGE_SCN_MEM_READ // the kernel, for firmware that asks
	dirSecurity     = 4                                             // data directory of Authenticode signatures
)

// Build returns the PE file. It changes the stub only where it must: number
// and table of sections, sizes, the revocation list, and a checksum of zero,
// which UEFI ignores.
func (u UKI) Build() ([]byte, error) {
	if strings.ContainsAny(u.Cmdline, "\x00\n") {
		return nil, fmt.Errorf("command line %q: has a control character", u.Cmdline)
	}
	l, err := readLayout(u.Stub)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStub, err)
	}
	headers := slices.Clone(u.Stub[:l.tableEnd])
	body := slices.Clone(u.Stub[l.sizeOfHeaders:l.rawEnd])

	add := u.sections()
	need := l.tableEnd + uint32(len(add))*peSectionHeader
	newHeaders := max(l.sizeOfHeaders, align(need, l.fileAlign))
	if newHeaders > l.firstVA {
		return nil, fmt.Errorf("%w: %d more sections do not fit before the first one", ErrStub, len(add))
	}
	shift := newHeaders - l.sizeOfHeaders
	for i := range l.file.Sections {
		at := l.table + uint32(i)*peSectionHeader + 20 // PointerToRawData
		if p := binary.LittleEndian.Uint32(headers[at:]); p != 0 {
			binary.LittleEndian.PutUint32(headers[at:], p+shift)
		}
	}

	va, raw := l.endVA, newHeaders+uint32(len(body))
	var data uint32
	for _, s := range add {
		if len(s.content) == 0 {
			return nil, fmt.Errorf("UKI section %s is empty", s.name)
		}
		size := align(uint32(len(s.content)), l.fileAlign)
		h := make([]byte, peSectionHeader)
		copy(h, s.name)
		binary.LittleEndian.PutUint32(h[8:], uint32(len(s.content))) // VirtualSize: the exact length
		binary.LittleEndian.PutUint32(h[12:], va)
		binary.LittleEndian.PutUint32(h[16:], size)
		binary.LittleEndian.PutUint32(h[20:], raw)
		binary.LittleEndian.PutUint32(h[36:], peReadOnlyData)
		if s.name == ".linux" {
			binary.LittleEndian.PutUint32(h[36:], peReadOnlyCode)
		}
		headers = append(headers, h...)
		body = append(body, s.content...)
		body = append(body, make([]byte, size-uint32(len(s.content)))...)
		va += align(uint32(len(s.content)), l.sectionAlign)
		raw += size
		data += size
	}
	headers = append(headers, make([]byte, newHeaders-uint32(len(headers)))...)

	binary.LittleEndian.PutUint16(headers[l.coff+2:], uint16(len(l.file.Sections)+len(add)))
	binary.LittleEndian.PutUint32(headers[l.coff+4:], 0) // TimeDateStamp: no clock
	put := func(offset, v uint32) { binary.LittleEndian.PutUint32(headers[l.optional+offset:], v) }
	put(8, l.header.SizeOfInitializedData+data)
	put(56, va)         // SizeOfImage
	put(60, newHeaders) // SizeOfHeaders
	put(64, 0)          // CheckSum
	u.stripNX(l, headers)
	if err := u.mergeSBAT(l, headers, body); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStub, err)
	}
	return append(headers, body...), nil
}

// layout is where the parts of a PE32+ file lie.
type layout struct {
	file                    *pe.File
	header                  *pe.OptionalHeader64
	coff, optional          uint32 // file offsets of the two headers
	table, tableEnd         uint32 // of the section table
	sizeOfHeaders, rawEnd   uint32
	firstVA, endVA          uint32
	fileAlign, sectionAlign uint32
}

func readLayout(b []byte) (*layout, error) {
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	h, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	switch {
	case !ok:
		return nil, errors.New("not a 64-bit PE program")
	case f.FileHeader.PointerToSymbolTable != 0 || f.FileHeader.NumberOfSymbols != 0:
		return nil, errors.New("has a symbol table")
	case len(f.Sections) == 0:
		return nil, errors.New("has no sections")
	case h.FileAlignment == 0 || h.FileAlignment&(h.FileAlignment-1) != 0 || h.SectionAlignment == 0 || h.SectionAlignment&(h.SectionAlignment-1) != 0:
		return nil, fmt.Errorf("alignments %d and %d", h.FileAlignment, h.SectionAlignment)
	case h.NumberOfRvaAndSizes > dirSecurity && h.DataDirectory[dirSecurity].Size != 0:
		return nil, errors.New("is signed: sections cannot be added any more")
	}
	l := &layout{file: f, header: h, fileAlign: h.FileAlignment, sectionAlign: h.SectionAlignment, sizeOfHeaders: h.SizeOfHeaders}
	l.coff = binary.LittleEndian.Uint32(b[0x3c:]) + 4
	l.optional = l.coff + 20
	l.table = l.optional + uint32(f.FileHeader.SizeOfOptionalHeader)
	l.tableEnd = l.table + uint32(len(f.Sections))*peSectionHeader
	l.firstVA, l.rawEnd = f.Sections[0].VirtualAddress, l.sizeOfHeaders
	for _, s := range f.Sections {
		for _, ours := range (UKI{PCRKey: []byte{}, PCRSig: []byte{}}).sections() {
			if s.Name == ours.name {
				return nil, fmt.Errorf("already has a section %s", s.Name)
			}
		}
		l.firstVA = min(l.firstVA, s.VirtualAddress)
		l.endVA = max(l.endVA, align(s.VirtualAddress+max(s.VirtualSize, s.Size), l.sectionAlign))
		l.rawEnd = max(l.rawEnd, s.Offset+s.Size)
	}
	if uint64(l.rawEnd) > uint64(len(b)) || l.tableEnd > l.sizeOfHeaders {
		return nil, errors.New("is cut off")
	}
	return l, nil
}

func align(n, to uint32) uint32 { return (n + to - 1) &^ (to - 1) }

// ReadUKI takes a UKI apart again, to look into it or to boot its parts.
func ReadUKI(b []byte) (UKI, error) {
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		return UKI{}, fmt.Errorf("read UKI: %w", err)
	}
	var u UKI
	to := map[string]func([]byte){
		".osrel": func(c []byte) { u.OSRel = c }, ".cmdline": func(c []byte) { u.Cmdline = string(c) },
		".uname": func(c []byte) { u.Uname = string(c) }, ".initrd": func(c []byte) { u.Initrd = c }, ".linux": func(c []byte) { u.Linux = c },
	}
	optional := map[string]func([]byte){".pcrpkey": func(c []byte) { u.PCRKey = c }, ".pcrsig": func(c []byte) { u.PCRSig = c }}
	for _, s := range f.Sections {
		set, ok := to[s.Name]
		if !ok {
			set, ok = optional[s.Name]
		}
		if !ok {
			continue
		}
		content, err := s.Data()
		if err != nil || s.VirtualSize > uint32(len(content)) {
			return UKI{}, fmt.Errorf("read UKI section %s: cut off: %w", s.Name, err)
		}
		set(content[:s.VirtualSize])
		delete(to, s.Name)
	}
	if len(to) > 0 {
		return UKI{}, fmt.Errorf("read UKI: %d sections are missing", len(to))
	}
	return u, nil
}
