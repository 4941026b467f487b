// SPDX-License-Identifier: Apache-2.0

package fat32

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// ErrFormat says that there is no FAT32 that we can read.
var ErrFormat = errors.New("no readable FAT32")

const (
	maxDepth  = 8
	maxFolder = 1 << 20 // bytes of one folder
	maxItems  = 4096
)

type reader struct {
	r     io.ReaderAt
	start int64
	g     geometry
	left  int64 // bytes that may still be read: no chain goes in a circle for ever
	items int
}

// Read returns all files of the volume that begins start bytes into r, in the
// order of its folders. size bounds what it may hold.
func Read(r io.ReaderAt, start, size int64) ([]File, error) {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, start); err != nil {
		return nil, fmt.Errorf("read FAT32: %w", err)
	}
	le := binary.LittleEndian
	g := geometry{
		sector: int64(le.Uint16(b[11:])), reserved: int64(le.Uint16(b[14:])), perFAT: int64(le.Uint32(b[36:])), sectors: int64(le.Uint32(b[32:])),
	}
	g.cluster = int64(b[13]) * g.sector
	switch {
	case b[510] != 0x55 || b[511] != 0xaa || string(b[82:87]) != "FAT32":
		return nil, fmt.Errorf("%w: no boot sector", ErrFormat)
	case g.sector < 512 || g.sector > 4096 || g.sector&(g.sector-1) != 0 || g.cluster == 0 || b[16] != 2 || g.perFAT == 0 || g.sectors*g.sector > size:
		return nil, fmt.Errorf("%w: boot sector", ErrFormat)
	}
	g.clusters = (g.sectors - g.reserved - 2*g.perFAT) * g.sector / g.cluster
	if g.clusters < 1 || g.clusters*4 > g.perFAT*g.sector {
		return nil, fmt.Errorf("%w: %d clusters", ErrFormat, g.clusters)
	}
	rd := reader{r: r, start: start, g: g, left: size}
	return rd.folder(le.Uint32(b[44:]), "", 0)
}

// chain reads a chain of clusters: n bytes, or all of it when n < 0.
func (rd *reader) chain(c uint32, n int64) ([]byte, error) {
	var out []byte
	for c >= rootCluster && c < badCluster && (n < 0 || int64(len(out)) < n) {
		if int64(c) >= rd.g.clusters+rootCluster {
			return nil, fmt.Errorf("%w: cluster %d of %d", ErrFormat, c, rd.g.clusters)
		}
		if rd.left -= rd.g.cluster; rd.left < 0 || n < 0 && len(out) > maxFolder {
			return nil, fmt.Errorf("%w: a chain does not end", ErrFormat)
		}
		buf := make([]byte, rd.g.cluster)
		if _, err := rd.r.ReadAt(buf, rd.start+rd.g.at(c)); err != nil {
			return nil, fmt.Errorf("read FAT32: %w", err)
		}
		out = append(out, buf...)
		var next [4]byte
		if _, err := rd.r.ReadAt(next[:], rd.start+rd.g.fatAt(0)+int64(c)*4); err != nil {
			return nil, fmt.Errorf("read FAT32: %w", err)
		}
		c = binary.LittleEndian.Uint32(next[:]) & fatMask
	}
	if n < 0 {
		return out, nil
	}
	if int64(len(out)) < n {
		return nil, fmt.Errorf("%w: a file ends after %d of %d bytes", ErrFormat, len(out), n)
	}
	return out[:n], nil
}

func (rd *reader) folder(first uint32, path string, depth int) ([]File, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: folders nest too deep", ErrFormat)
	}
	b, err := rd.chain(first, -1)
	if err != nil {
		return nil, err
	}
	var all []File
	var name []uint16
	le := binary.LittleEndian
	for ; len(b) >= entrySize && b[0] != 0; b = b[entrySize:] {
		e := b[:entrySize]
		switch {
		case e[0] == 0xe5:
			name = nil
			continue
		case e[11]&attrLong == attrLong:
			part := make([]uint16, perLong)
			for k := range part {
				part[k] = le.Uint16(e[longAt(k):])
			}
			name = append(part, name...)
			continue
		case e[11]&attrVolume != 0 || e[0] == '.':
			name = nil
			continue
		}
		if rd.items++; rd.items > maxItems {
			return nil, fmt.Errorf("%w: more than %d files", ErrFormat, maxItems)
		}
		p := path + "/" + nameOf(e, name)
		name = nil
		c := uint32(le.Uint16(e[20:]))<<16 | uint32(le.Uint16(e[26:]))
		if e[11]&attrFolder != 0 {
			below, err := rd.folder(c, p, depth+1)
			if err != nil {
				return nil, err
			}
			all = append(all, below...)
			continue
		}
		content, err := rd.chain(c, int64(le.Uint32(e[28:])))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		all = append(all, File{p, content})
	}
	return all, nil
}

func nameOf(e []byte, long []uint16) string {
	for i, c := range long {
		if c == 0 {
			long = long[:i]
			break
		}
	}
	if len(long) > 0 {
		return string(utf16.Decode(long))
	}
	base, ext := strings.TrimRight(string(e[:8]), " "), strings.TrimRight(string(e[8:11]), " ")
	if ext == "" {
		return base
	}
	return base + "." + ext
}
