// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"fmt"
	"strings"
)

const (
	sbatHead = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n"
	sbatUKI  = "uki,1,UKI,uki,1,https://uapi-group.org/specifications/specs/unified_kernel_image/\n"
	nxCompat = pe.IMAGE_DLLCHARACTERISTICS_NX_COMPAT
)

// sbat lists what a revocation may name: the lines of stub and kernel, and
// the kind of file that a UKI is. systemd's ukify writes the same.
func sbat(programs ...[]byte) ([]byte, error) {
	var b strings.Builder
	b.WriteString(sbatHead)
	for _, p := range programs {
		f, err := pe.NewFile(bytes.NewReader(p))
		if err != nil {
			continue // a kernel that is no PE program says nothing about itself
		}
		s := f.Section(".sbat")
		if s == nil {
			continue
		}
		data, err := s.Data()
		if err != nil {
			return nil, fmt.Errorf("read .sbat: %w", err)
		}
		text := string(bytes.TrimRight(data, "\x00"))
		first, rest, _ := strings.Cut(text, "\n")
		if !strings.HasPrefix(first, "sbat,") {
			return nil, fmt.Errorf("read .sbat: begins with %q", first)
		}
		b.WriteString(strings.TrimRight(rest, "\n"))
		b.WriteByte('\n')
	}
	b.WriteString(sbatUKI)
	b.WriteByte(0)
	return []byte(b.String()), nil
}

// mergeSBAT writes the merged list into the stub's own section, which has
// room for it up to the file's alignment.
func (u UKI) mergeSBAT(l *layout, headers, body []byte) error {
	i := -1
	for n, s := range l.file.Sections {
		if s.Name == ".sbat" {
			i = n
		}
	}
	if i < 0 {
		return nil
	}
	text, err := sbat(u.Stub, u.Linux)
	if err != nil {
		return err
	}
	s := l.file.Sections[i]
	if uint32(len(text)) > s.Size {
		return fmt.Errorf(".sbat of %d bytes does not fit into the stub's %d", len(text), s.Size)
	}
	room := body[s.Offset-l.sizeOfHeaders:][:s.Size]
	clear(room[copy(room, text):])
	binary.LittleEndian.PutUint32(headers[l.table+uint32(i)*peSectionHeader+8:], uint32(len(text)))
	return nil
}

// stripNX takes back the promise that no page is both written and executed
// when the kernel does not make it: firmware that enforces it starts one
// program and means both.
func (u UKI) stripNX(l *layout, headers []byte) {
	f, err := pe.NewFile(bytes.NewReader(u.Linux))
	if err != nil {
		return
	}
	if h, ok := f.OptionalHeader.(*pe.OptionalHeader64); ok && h.DllCharacteristics&nxCompat == 0 {
		binary.LittleEndian.PutUint16(headers[l.optional+70:], l.header.DllCharacteristics&^nxCompat)
	}
}
