// SPDX-License-Identifier: Apache-2.0

package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"slices"
	"strings"
	"unicode/utf16"
)

const (
	entrySize  = 32
	deleted    = 0xe5
	attrVolume = 0x08
	attrFolder = 0x10
	attrFile   = 0x20
	attrLong   = 0x0f
	firstDay   = 1<<5 | 1 // 1980-01-01: no clock is asked
	perLong    = 13
	maxEntries = 4096
)

// folder is one that was read: its clusters and all of its entries.
type folder struct {
	clusters []uint32
	raw      []byte
}

// entry is a file or folder in it.
type entry struct {
	name        string
	first, last int // its entries: those of the long name, and the short one
	attr        byte
	start       uint32
	size        int64
}

func (v *Volume) folder(start uint32) (*folder, error) {
	clusters, ok := v.chain(start)
	if !ok || int64(len(clusters))*v.cluster > maxEntries*entrySize {
		return nil, fmt.Errorf("%w: a folder's chain", ErrFormat)
	}
	f := &folder{clusters: clusters, raw: make([]byte, int64(len(clusters))*v.cluster)}
	for i, c := range clusters {
		if err := v.read(f.raw[int64(i)*v.cluster:int64(i+1)*v.cluster], v.at(c)); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *folder) slot(i int) []byte { return f.raw[i*entrySize : (i+1)*entrySize] }
func (f *folder) slots() int        { return len(f.raw) / entrySize }

// entries lists what is there; orphans are parts of long names that belong to
// nothing.
func (f *folder) entries() (all []entry, orphans []int) {
	var long []uint16
	var parts []int
	lost := func() { orphans, long, parts = append(orphans, parts...), nil, nil }
	le := binary.LittleEndian
	for i := range f.slots() {
		e := f.slot(i)
		switch {
		case e[0] == 0:
			lost()
			return all, orphans
		case e[0] == deleted:
			lost()
			continue
		case e[11]&attrLong == attrLong:
			if e[0]&0x40 != 0 {
				lost()
			}
			part := make([]uint16, perLong)
			for k := range part {
				part[k] = le.Uint16(e[longAt(k):])
			}
			long, parts = append(part, long...), append(parts, i)
			continue
		}
		if len(parts) > 0 && !f.belongs(parts, e) {
			lost()
		}
		if e[11]&attrVolume != 0 || e[0] == '.' {
			lost()
			continue
		}
		it := entry{name: shortOf(e), first: i, last: i, attr: e[11], start: uint32(le.Uint16(e[20:]))<<16 | uint32(le.Uint16(e[26:])), size: int64(le.Uint32(e[28:]))}
		if len(parts) > 0 {
			if n := slices.Index(long, 0); n >= 0 {
				long = long[:n]
			}
			it.name, it.first = string(utf16.Decode(long)), parts[0]
		}
		long, parts = nil, nil
		all = append(all, it)
	}
	lost()
	return all, orphans
}

// belongs says whether the parts of a long name are whole, in order, and of the
// short entry behind them.
func (f *folder) belongs(parts []int, short []byte) bool {
	sum := checksum(short[:11])
	for n, i := range parts {
		e := f.slot(i)
		if e[13] != sum || int(e[0]&0x3f) != len(parts)-n || (n == 0) != (e[0]&0x40 != 0) {
			return false
		}
	}
	return true
}

func shortOf(e []byte) string {
	base, ext := strings.TrimRight(string(e[:8]), " "), strings.TrimRight(string(e[8:11]), " ")
	if ext == "" {
		return base
	}
	return base + "." + ext
}

// find looks a path up: its folder and, if it is there, its entry.
func (v *Volume) find(path string) (*folder, *entry, string, error) {
	parts := strings.Split(path, "/")
	at := v.root
	for i, name := range parts {
		f, err := v.folder(at)
		if err != nil {
			return nil, nil, "", err
		}
		all, _ := f.entries()
		n := slices.IndexFunc(all, func(e entry) bool { return strings.EqualFold(e.name, name) })
		switch {
		case i == len(parts)-1 && n < 0:
			return f, nil, name, nil
		case i == len(parts)-1:
			return f, &all[n], name, nil
		case n < 0 || all[n].attr&attrFolder == 0:
			return nil, nil, "", fmt.Errorf("%s: folder %s: %w", path, strings.Join(parts[:i+1], "/"), fs.ErrNotExist)
		}
		at = all[n].start
	}
	return nil, nil, "", fmt.Errorf("%s: %w", path, fs.ErrInvalid)
}

// store writes the sectors of entries one after the other, in the order in which
// they are named: those of a name that is made before the short entry, which
// counts, and of one that is struck behind it.
func (v *Volume) store(f *folder, entries ...int) error {
	per := int(v.sector) / entrySize
	var sectors []int
	for _, i := range entries {
		if s := i / per; !slices.Contains(sectors, s) {
			sectors = append(sectors, s)
		}
	}
	for _, s := range sectors {
		off := int64(s) * v.sector
		err := v.write(f.raw[off:off+v.sector], v.at(f.clusters[off/v.cluster])+off%v.cluster)
		if err := errors.Join(err, v.sync()); err != nil {
			return err
		}
	}
	return nil
}

// point changes where a file begins and how long it is.
func (f *folder) point(e *entry, start uint32, size int64) {
	b := f.slot(e.last)
	le := binary.LittleEndian
	le.PutUint16(b[20:], uint16(start>>16))
	le.PutUint16(b[26:], uint16(start))
	le.PutUint32(b[28:], uint32(size))
	e.start, e.size = start, size
}

// strike marks entries as free and says which.
func (f *folder) strike(e *entry) []int {
	var out []int
	for i := e.last; i >= e.first; i-- {
		f.slot(i)[0] = deleted
		out = append(out, i)
	}
	return out
}

// put makes the entries of a file in the first run of free ones that is long
// enough, and says which. A folder without one grows by a cluster.
func (v *Volume) put(f *folder, name string, start uint32, size int64) ([]int, error) {
	all, _ := f.entries()
	short, err := alias(name, all, f)
	if err != nil {
		return nil, err
	}
	chars := utf16.Encode([]rune(name))
	if len(chars)%perLong != 0 {
		chars = append(chars, 0)
	}
	for len(chars)%perLong != 0 {
		chars = append(chars, 0xffff)
	}
	n := len(chars)/perLong + 1
	at, ended := f.run(n)
	if at < 0 {
		if err := v.grow(f); err != nil {
			return nil, err
		}
		at, ended = f.run(n)
	}
	if at < 0 {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrInvalid)
	}
	le := binary.LittleEndian
	var used []int
	if behind := at + n; ended && behind < f.slots() && f.slot(behind)[0] != 0 {
		clear(f.slot(behind)) // the end of the folder moves there
		used = append(used, behind)
	}
	for k := range n {
		i := at + k
		used = append(used, i)
		e := f.slot(i)
		clear(e)
		if k == n-1 {
			copy(e, short)
			e[11] = attrFile
			for _, day := range []int{16, 18, 24} {
				le.PutUint16(e[day:], firstDay)
			}
			f.point(&entry{last: i}, start, size)
			break
		}
		e[0], e[11], e[13] = byte(n-1-k), attrLong, checksum([]byte(short))
		if k == 0 {
			e[0] |= 0x40
		}
		for j, c := range chars[(n-2-k)*perLong:][:perLong] {
			le.PutUint16(e[longAt(j):], c)
		}
	}
	return used, nil
}

// run finds n free entries in a row, -1 if there are none, and says whether
// they reach behind the folder's end.
func (f *folder) run(n int) (at int, ended bool) {
	free := 0
	for i := range f.slots() {
		e := f.slot(i)
		ended = ended || e[0] == 0
		if !ended && e[0] != deleted {
			free = 0
			continue
		}
		if free++; free == n {
			return i - n + 1, ended
		}
	}
	return -1, false
}

// grow adds an empty cluster to a folder.
func (v *Volume) grow(f *folder) error {
	if len(f.raw)+int(v.cluster) > maxEntries*entrySize {
		return fmt.Errorf("a folder of %d entries: %w", f.slots(), fs.ErrInvalid)
	}
	got, err := v.allocate(1, end)
	if err != nil {
		return err
	}
	if err := errors.Join(v.write(make([]byte, v.cluster), v.at(got[0])), v.sync()); err != nil {
		return err
	}
	if err := v.set(map[uint32]uint32{f.clusters[len(f.clusters)-1]: got[0]}); err != nil {
		return err
	}
	f.clusters, f.raw = append(f.clusters, got[0]), append(f.raw, make([]byte, v.cluster)...)
	return nil
}

// alias is a short name that nothing in the folder has.
func alias(name string, all []entry, f *folder) (string, error) {
	h := fnv.New32a()
	h.Write([]byte(name))
	ext := "   "
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		ext = fmt.Sprintf("%-3.3s", strings.ToUpper(name[i+1:]))
	}
	for n := range uint32(1000) {
		short := fmt.Sprintf("Z%05X~1%s", (h.Sum32()+n)&0xfffff, ext)
		if !slices.ContainsFunc(all, func(e entry) bool { return string(f.slot(e.last)[:11]) == short }) {
			return short, nil
		}
	}
	return "", fmt.Errorf("%s: no short name is left: %w", name, fs.ErrExist)
}

// longAt is where the k-th character of a part of a long name stands.
func longAt(k int) int {
	switch {
	case k < 5:
		return 1 + 2*k
	case k < 11:
		return 14 + 2*(k-5)
	}
	return 28 + 2*(k-11)
}

func checksum(short []byte) byte {
	var s byte
	for _, c := range short[:11] {
		s = s>>1 | s<<7
		s += c
	}
	return s
}
