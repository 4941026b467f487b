// SPDX-License-Identifier: Apache-2.0

package fat32

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// item is a file or a folder of a volume.
type item struct {
	name    string
	label   string // root: the volume's
	folder  bool
	content []byte
	items   []*item // folder
	parent  *item
	first   uint32 // cluster; 0 for an empty file
	count   uint32
}

// tree sorts the files into folders, in the order of their names.
func (v Volume) tree() (*item, error) {
	root := &item{folder: true, label: v.Label}
	for _, f := range v.Files {
		if err := checkPath(f.Path); err != nil {
			return nil, err
		}
		if int64(len(f.Content)) > 1<<32-1 {
			return nil, fmt.Errorf("FAT32: %s: %w", f.Path, ErrTooLarge)
		}
		names := strings.Split(f.Path[1:], "/")
		at := root
		for i, n := range names {
			// Names that differ by case alone are one name to FAT.
			same := slices.IndexFunc(at.items, func(it *item) bool { return strings.EqualFold(it.name, n) })
			last := i == len(names)-1
			if same >= 0 && (last || !at.items[same].folder) {
				return nil, fmt.Errorf("FAT32: %s stands twice", f.Path)
			}
			if same >= 0 {
				at = at.items[same]
				continue
			}
			it := &item{name: n, folder: !last, parent: at}
			if last {
				it.content = f.Content
			}
			at.items = append(at.items, it)
			at = it
		}
	}
	root.sort()
	return root, nil
}

func (it *item) sort() {
	slices.SortFunc(it.items, func(a, b *item) int { return strings.Compare(strings.ToUpper(a.name), strings.ToUpper(b.name)) })
	for _, i := range it.items {
		i.sort()
	}
}

// size in bytes, of a folder its entries.
func (it *item) size() int64 {
	if !it.folder {
		return int64(len(it.content))
	}
	n := int64(2) // "." and "..", or label and end mark
	for _, i := range it.items {
		n += 1 + int64(longEntries(i.name))
	}
	return n * entrySize
}

// place gives clusters: a folder, then what is in it.
func (it *item) place(g geometry, next *uint32) {
	it.count = uint32((it.size() + g.cluster - 1) / g.cluster)
	if it.count > 0 {
		it.first = *next
	}
	*next += it.count
	for _, i := range it.items {
		i.place(g, next)
	}
}

// write fills table with the chains and writes the contents.
func (it *item) write(g geometry, table []byte, put func([]byte, int64) error) error {
	for c := it.first; c < it.first+it.count; c++ {
		next := c + 1
		if next == it.first+it.count {
			next = endOfChain
		}
		binary.LittleEndian.PutUint32(table[c*4:], next)
	}
	content := it.content
	if it.folder {
		content = it.entries()
	}
	if len(content) > 0 {
		if err := put(content, g.at(it.first)); err != nil {
			return err
		}
	}
	for _, i := range it.items {
		if err := i.write(g, table, put); err != nil {
			return err
		}
	}
	return nil
}

// entries is a folder's content.
func (it *item) entries() []byte {
	var b []byte
	if it.parent == nil {
		if it.label != "" {
			b = entry(b, fmt.Sprintf("%-11s", it.label), attrVolume, 0, 0)
		}
	} else {
		up := it.parent.first
		if it.parent.parent == nil {
			up = 0 // the root's number is not written
		}
		b = entry(b, ".          ", attrFolder, it.first, 0)
		b = entry(b, "..         ", attrFolder, up, 0)
	}
	taken := map[string]bool{}
	for _, i := range it.items {
		short := shortName(i.name, taken)
		b = long(b, i.name, short)
		if i.folder {
			b = entry(b, short, attrFolder, i.first, 0)
		} else {
			b = entry(b, short, attrFile, i.first, uint32(len(i.content)))
		}
	}
	return b
}

func entry(b []byte, short string, attr byte, first, size uint32) []byte {
	e := make([]byte, entrySize)
	copy(e, short)
	e[11] = attr
	le := binary.LittleEndian
	for _, at := range []int{16, 18, 24} { // created, read, written
		le.PutUint16(e[at:], firstDay)
	}
	le.PutUint16(e[20:], uint16(first>>16))
	le.PutUint16(e[26:], uint16(first))
	le.PutUint32(e[28:], size)
	return append(b, e...)
}

// plain is a name that needs no long one: 8.3 in upper case.
func plain(name string) bool {
	base, ext, dot := strings.Cut(name, ".")
	return base != "" && len(base) <= 8 && len(ext) <= 3 && (ext != "") == dot && !strings.Contains(ext, ".") &&
		name == strings.ToUpper(name) && !strings.ContainsAny(name, "+,;=[]")
}

// shortName is the eleven characters of a name, unique in its folder.
func shortName(name string, taken map[string]bool) string {
	clean := strings.Map(func(r rune) rune {
		if strings.ContainsRune("+,;=[]", r) {
			return '_'
		}
		return r
	}, strings.ToUpper(name))
	base, ext := clean, ""
	if i := strings.LastIndexByte(clean, '.'); i > 0 {
		base, ext = clean[:i], clean[i+1:]
	}
	base = strings.ReplaceAll(base, ".", "")
	ext = ext[:min(3, len(ext))]
	short := fmt.Sprintf("%-8.8s%-3s", base, ext)
	for n := 1; !plain(name) || taken[short]; n++ {
		tail := fmt.Sprintf("~%d", n)
		short = fmt.Sprintf("%-8s%-3s", base[:min(len(base), 8-len(tail))]+tail, ext)
		if !taken[short] {
			break
		}
	}
	taken[short] = true
	return short
}

const perLong = 13 // characters of a long name in one entry

func longEntries(name string) int {
	if plain(name) {
		return 0
	}
	return (len(name) + perLong - 1) / perLong
}

// long writes the entries of a long name, its end first.
func long(b []byte, name, short string) []byte {
	n := longEntries(name)
	chars := utf16.Encode([]rune(name))
	if len(chars)%perLong != 0 {
		chars = append(chars, 0)
	}
	for len(chars)%perLong != 0 {
		chars = append(chars, 0xffff)
	}
	for i := n; i >= 1; i-- {
		e := make([]byte, entrySize)
		e[0] = byte(i)
		if i == n {
			e[0] |= 0x40
		}
		e[11], e[13] = attrLong, checksum(short)
		for k, c := range chars[(i-1)*perLong:][:perLong] {
			binary.LittleEndian.PutUint16(e[longAt(k):], c)
		}
		b = append(b, e...)
	}
	return b
}

// longAt is where the k-th character of a long entry stands.
func longAt(k int) int {
	switch {
	case k < 5:
		return 1 + 2*k
	case k < 11:
		return 14 + 2*(k-5)
	}
	return 28 + 2*(k-11)
}

func checksum(short string) byte {
	var s byte
	for i := range 11 {
		s = s>>1 | s<<7
		s += short[i]
	}
	return s
}
