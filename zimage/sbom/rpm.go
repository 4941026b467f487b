// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"strings"
)

// Tags and types of rpm's headers that are asked for.
const (
	rpmName, rpmVersion, rpmRelease, rpmEpoch, rpmArch = 1000, 1001, 1002, 1003, 1022
	rpmInt32, rpmString                                = 4, 6
	maxRPMTags                                         = 1 << 16
	maxRow                                             = 16 << 20 // of a package's header with its lists of files
	maxColumns                                         = 16
	maxLevels                                          = 20 // of a table's tree
)

// rpmHeader reads a package's header as the databases hold it: the number of
// its tags, the size of its values, an index of 16 bytes a tag, the values.
func rpmHeader(b []byte) (Package, bool) {
	if len(b) < 8 {
		return Package{}, false
	}
	n := binary.BigEndian
	tags, size := int(n.Uint32(b)), int(n.Uint32(b[4:]))
	if tags > maxRPMTags || 8+16*tags+size > len(b) || size < 0 {
		return Package{}, false
	}
	values := b[8+16*tags:][:size]
	text := map[uint32]string{}
	for i := 0; i < tags; i++ {
		e := b[8+16*i:]
		tag, kind, off := n.Uint32(e), n.Uint32(e[4:]), int(n.Uint32(e[8:]))
		if off >= size || tag != rpmName && tag != rpmVersion && tag != rpmRelease && tag != rpmEpoch && tag != rpmArch {
			continue
		}
		switch {
		case kind == rpmString:
			v, _, _ := bytes.Cut(values[off:], []byte{0})
			text[tag] = string(v)
		case kind == rpmInt32 && off+4 <= size:
			text[tag] = strconv.Itoa(int(n.Uint32(values[off:])))
		}
	}
	if text[rpmName] == "" || text[rpmVersion] == "" {
		return Package{}, false
	}
	return Package{Type: "rpm", Name: text[rpmName], Version: text[rpmVersion] + "-" + text[rpmRelease], Arch: text[rpmArch], Epoch: text[rpmEpoch]}, true
}

// rpmKeys are not software: rpm keeps the keys that it trusts as packages.
const rpmKeys = "gpg-pubkey"

// rpmSQLite reads rpmdb.sqlite: the blobs of its table Packages.
func rpmSQLite(in *input) bool {
	some := false
	return sqliteTable(in, in.Size(), "Packages", func(r [][]byte) bool { // hnum, blob
		if len(r) < 2 {
			return false
		}
		p, ok := rpmHeader(r[1])
		if !ok {
			return false
		}
		some = true
		if p.Name != rpmKeys {
			p.Space = in.distro
			in.add(p)
		}
		return true
	}) && some
}

// sqliteTable passes all rows of a table of a SQLite 3 database file to row,
// which must not keep them. Integers come as nothing; only blobs and texts are
// asked for.
func sqliteTable(r io.ReaderAt, size int64, table string, row func([][]byte) bool) bool {
	const magic = "SQLite format 3\x00"
	head := make([]byte, 100)
	if n, err := r.ReadAt(head, 0); n < len(head) || err != nil && !errors.Is(err, io.EOF) || string(head[:16]) != magic {
		return false
	}
	d := sqlite{r: r, page: int(binary.BigEndian.Uint16(head[16:]))}
	if d.page == 1 {
		d.page = 1 << 16
	}
	if d.page < 512 || d.page&(d.page-1) != 0 {
		return false
	}
	d.pages, d.usable = int(size/int64(d.page)), d.page-int(head[20])
	if d.usable < 480 {
		return false
	}
	root := 0
	if !d.walk(1, 0, func(r [][]byte) bool { // type, name, tbl_name, rootpage, sql
		if root == 0 && len(r) >= 4 && string(r[0]) == "table" && strings.EqualFold(string(r[1]), table) {
			for _, c := range r[3] {
				root = root<<8 | int(c)
			}
		}
		return true
	}) {
		return false
	}
	return root > 0 && d.walk(root, 0, row)
}

type sqlite struct {
	r                   io.ReaderAt
	page, usable, pages int
	visited             int
}

// at reads a page; nil is none.
func (d *sqlite) at(number int) []byte {
	if number < 1 || number > d.pages {
		return nil
	}
	b := make([]byte, d.page)
	if n, err := d.r.ReadAt(b, int64(number-1)*int64(d.page)); n < len(b) || err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	return b
}

// walk passes on the rows below a page of a table's tree.
func (d *sqlite) walk(number, level int, row func([][]byte) bool) bool {
	const interior, leaf = 5, 13
	p := d.at(number)
	if d.visited++; p == nil || level > maxLevels || d.visited > d.pages+1 { // pages that lead in a circle
		return false
	}
	head := 0
	if number == 1 {
		head = 100
	}
	n, start := int(binary.BigEndian.Uint16(p[head+3:])), head+8
	if p[head] == interior {
		start = head + 12
	}
	if p[head] != interior && p[head] != leaf || start+2*n > len(p) {
		return false
	}
	for i := 0; i < n; i++ {
		at := int(binary.BigEndian.Uint16(p[start+2*i:]))
		if at+4 > d.usable {
			return false
		}
		if p[head] == interior {
			if !d.walk(int(binary.BigEndian.Uint32(p[at:])), level+1, row) {
				return false
			}
			continue
		}
		payload, ok := d.payload(p[at:d.usable])
		if !ok {
			return false
		}
		r, ok := record(payload)
		if !ok || !row(r) {
			return false
		}
	}
	return p[head] == leaf || d.walk(int(binary.BigEndian.Uint32(p[head+8:])), level+1, row)
}

// payload is a leaf cell's, with what overflows into other pages.
func (d *sqlite) payload(cell []byte) ([]byte, bool) {
	size, n := varint(cell)
	_, m := varint(cell[n:]) // the row's number
	if n == 0 || m == 0 || size > maxRow {
		return nil, false
	}
	cell = cell[n+m:]
	total, most := int(size), d.usable-35
	if total <= most {
		if total > len(cell) {
			return nil, false
		}
		return cell[:total], true
	}
	least := (d.usable-12)*32/255 - 23
	local := least + (total-least)%(d.usable-4)
	if local > most {
		local = least
	}
	if local+4 > len(cell) {
		return nil, false
	}
	out := append(make([]byte, 0, total), cell[:local]...)
	next := int(binary.BigEndian.Uint32(cell[local:]))
	for len(out) < total {
		p := d.at(next)
		if p == nil {
			return nil, false
		}
		out = append(out, p[4:4+min(d.usable-4, total-len(out))]...)
		next = int(binary.BigEndian.Uint32(p))
	}
	return out, true
}

// record cuts a row into its columns.
func record(b []byte) (row [][]byte, ok bool) {
	size, n := varint(b)
	if n == 0 || size > uint64(len(b)) || size < uint64(n) {
		return nil, false
	}
	kinds, values := b[n:size], b[size:]
	for len(kinds) > 0 {
		if len(row) == maxColumns {
			return nil, false
		}
		kind, n := varint(kinds)
		if n == 0 {
			return nil, false
		}
		kinds = kinds[n:]
		length := uint64(0)
		switch {
		case kind >= 12:
			length = (kind - 12) / 2
		case kind <= 4:
			length = kind
		case kind == 5:
			length = 6
		case kind <= 7:
			length = 8
		}
		if length > uint64(len(values)) {
			return nil, false
		}
		row = append(row, values[:length])
		values = values[length:]
	}
	return row, true
}

// varint is SQLite's, big-endian in up to nine bytes; n is 0 when it is cut.
func varint(b []byte) (v uint64, n int) {
	for i, c := range b {
		if i == 8 {
			return v<<8 | uint64(c), 9
		}
		v = v<<7 | uint64(c&0x7f)
		if c < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
