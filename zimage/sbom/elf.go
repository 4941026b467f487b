// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"bytes"
	"encoding/binary"
	"io"
)

// object is what the dynamic linker wants to know of an ELF file.
type object struct {
	machine uint16
	class   byte   // 1 is 32 bits, 2 is 64
	interp  string // of an executable that is linked dynamically
	needed  []string
	rpath   string
	runpath string
}

// size is what is kept of a file.
func (o object) size() int {
	n := 128 + len(o.interp) + len(o.rpath) + len(o.runpath)
	for _, s := range o.needed {
		n += 16 + len(s)
	}
	return n
}

const (
	maxHeaders = 1024    // program headers
	maxDynamic = 1 << 16 // bytes of the dynamic section
	maxString  = 4096    // of one name
	maxNeeded  = 1024
)

const (
	ptLoad, ptDynamic, ptInterp            = 1, 2, 3
	dtNeeded, dtStrtab, dtRpath, dtRunpath = 1, 5, 15, 29
)

// segment is a program header.
type segment struct {
	kind               uint32
	off, vaddr, filesz uint64
}

// readELF reads an ELF file. ok is false for what is none, or is none that a
// loader would take. It reads what the headers point to, and little of it.
func readELF(r io.ReaderAt, size int64) (o object, ok bool) {
	h := make([]byte, 64)
	if n, err := r.ReadAt(h, 0); n < 52 || err != nil && n < len(h) && size >= int64(len(h)) || !bytes.HasPrefix(h, []byte("\x7fELF")) {
		return object{}, false
	}
	var order binary.ByteOrder = binary.LittleEndian
	if h[5] == 2 {
		order = binary.BigEndian
	}
	o = object{class: h[4], machine: order.Uint16(h[18:])}
	var table uint64
	var each, count int
	switch o.class {
	case 1:
		table, each, count = uint64(order.Uint32(h[28:])), int(order.Uint16(h[42:])), int(order.Uint16(h[44:]))
	case 2:
		table, each, count = order.Uint64(h[32:]), int(order.Uint16(h[54:])), int(order.Uint16(h[56:]))
	default:
		return object{}, false
	}
	if count == 0 || count > maxHeaders || each < 32 || o.class == 2 && each < 56 || each > 256 {
		return o, count == 0
	}
	b, ok := part(r, size, table, uint64(each*count))
	if !ok {
		return object{}, false
	}
	var all []segment
	for ; len(b) > 0; b = b[each:] {
		if o.class == 1 {
			all = append(all, segment{order.Uint32(b), uint64(order.Uint32(b[4:])), uint64(order.Uint32(b[8:])), uint64(order.Uint32(b[16:]))})
			continue
		}
		all = append(all, segment{order.Uint32(b), order.Uint64(b[8:]), order.Uint64(b[16:]), order.Uint64(b[32:])})
	}
	for _, s := range all {
		switch s.kind {
		case ptInterp:
			if b, ok := part(r, size, s.off, min(s.filesz, maxString)); ok {
				o.interp = string(bytes.TrimRight(b, "\x00"))
			}
		case ptDynamic:
			if b, ok := part(r, size, s.off, min(s.filesz, maxDynamic)); ok {
				o.dynamic(r, size, order, b, all)
			}
		}
	}
	return o, true
}

// dynamic reads the dynamic section.
func (o *object) dynamic(r io.ReaderAt, size int64, order binary.ByteOrder, b []byte, all []segment) {
	word := 8
	if o.class == 1 {
		word = 4
	}
	value := func(b []byte) uint64 {
		if word == 4 {
			return uint64(order.Uint32(b))
		}
		return order.Uint64(b)
	}
	type entry struct{ tag, value uint64 }
	var entries []entry
	strings, found := uint64(0), false
	for ; len(b) >= 2*word; b = b[2*word:] {
		e := entry{value(b), value(b[word:])}
		if e.tag == 0 {
			break
		}
		if e.tag == dtStrtab {
			strings, found = place(e.value, all)
		}
		entries = append(entries, e)
	}
	if !found {
		return
	}
	for _, e := range entries {
		if e.tag != dtNeeded && e.tag != dtRpath && e.tag != dtRunpath || e.value > uint64(size) {
			continue
		}
		at := strings + e.value
		if at >= uint64(size) {
			continue
		}
		text, ok := part(r, size, at, min(maxString, uint64(size)-at))
		if !ok {
			continue
		}
		text, _, ended := bytes.Cut(text, []byte{0})
		switch {
		case !ended || len(text) == 0:
		case e.tag == dtRpath:
			o.rpath = string(text)
		case e.tag == dtRunpath:
			o.runpath = string(text)
		case len(o.needed) < maxNeeded:
			o.needed = append(o.needed, string(text))
		}
	}
}

// place turns an address into an offset of the file.
func place(addr uint64, all []segment) (uint64, bool) {
	for _, s := range all {
		if s.kind == ptLoad && addr >= s.vaddr && addr-s.vaddr < s.filesz {
			return s.off + addr - s.vaddr, true
		}
	}
	return 0, false
}

// part reads a piece of a file that must be there.
func part(r io.ReaderAt, size int64, off, n uint64) ([]byte, bool) {
	if off > uint64(size) || n > uint64(size)-off {
		return nil, false
	}
	b := make([]byte, n)
	if got, err := r.ReadAt(b, int64(off)); err != nil && got < len(b) {
		return nil, false
	}
	return b, true
}
