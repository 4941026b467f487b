// SPDX-License-Identifier: Apache-2.0

// Package extent lists blocks of a disk, of 4 KiB each, as runs in a row.
//
// What a start reads is such a list, in the order of the first reads: the image
// server notes it, a record on the ledger says it, and a start pack begins with
// it. The written form is the same in both: for each run the zigzag varint of
// the distance from the end of the one before, and the uvarint of its length
// less one. A start reads much in a row and little further on, so most runs
// are two or three bytes.
package extent

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/zos-node/zos/zimage/verity"
)

// BlockSize of a disk in bytes: what a kernel reads at least, and what has a
// hash of its own.
const BlockSize = verity.BlockSize

// Extent is a run of blocks, counted from the disk's begin.
type Extent struct {
	First  int64 `json:"first"`
	Blocks int64 `json:"blocks"` // at least 1
}

// End is the block behind it.
func (e Extent) End() int64 { return e.First + e.Blocks }

// List is blocks in an order that means something; each stands in it once.
type List []Extent

// Add appends a block, to the last run where it follows that.
func (l List) Add(block int64) List {
	if n := len(l); n > 0 && l[n-1].End() == block {
		l[n-1].Blocks++
		return l
	}
	return append(l, Extent{block, 1})
}

// Blocks counts them.
func (l List) Blocks() (n int64) {
	for _, e := range l {
		n += e.Blocks
	}
	return n
}

// Encode writes the list, or as much of its beginning as fits into so many
// bytes.
func (l List) Encode(limit int) []byte {
	var b []byte
	end := int64(0)
	for _, e := range l {
		next := binary.AppendUvarint(binary.AppendVarint(b, e.First-end), uint64(e.Blocks-1))
		if len(next) > limit {
			break
		}
		b, end = next, e.End()
	}
	return b
}

// ErrList means bytes that are no list of blocks of such a disk.
var ErrList = errors.New("not a list of blocks of this disk")

// Decode reads a list of a disk of so many blocks back. No block is listed
// twice.
func Decode(b []byte, total int64) (List, error) {
	l := List{}
	for end := int64(0); len(b) > 0; {
		d, n := binary.Varint(b)
		if n <= 0 || d < -total || d > total {
			return nil, fmt.Errorf("%w: run %d: a distance that is none", ErrList, len(l))
		}
		more, k := binary.Uvarint(b[n:])
		if k <= 0 || more >= uint64(total) {
			return nil, fmt.Errorf("%w: run %d: a length that is none", ErrList, len(l))
		}
		e := Extent{end + d, int64(more) + 1}
		if e.First < 0 || e.End() > total {
			return nil, fmt.Errorf("%w: blocks %d to %d of %d", ErrList, e.First, e.End(), total)
		}
		l, b, end = append(l, e), b[n+k:], e.End()
	}
	sorted := slices.SortedFunc(slices.Values(l), func(a, b Extent) int { return cmp.Compare(a.First, b.First) })
	for i := 1; i < len(sorted); i++ {
		if sorted[i].First < sorted[i-1].End() {
			return nil, fmt.Errorf("%w: block %d twice", ErrList, sorted[i].First)
		}
	}
	return l, nil
}

// Set says of each block of a disk whether it is in it.
type Set struct {
	words []uint64
	count int64
}

// NewSet is an empty one for so many blocks.
func NewSet(blocks int64) *Set { return &Set{words: make([]uint64, (blocks+63)/64)} }

// Has says whether a block is in it.
func (s *Set) Has(block int64) bool { return s.words[block/64]&(1<<(block%64)) != 0 }

// Add puts a block in, and says whether it was not there.
func (s *Set) Add(block int64) bool {
	if s.Has(block) {
		return false
	}
	s.words[block/64] |= 1 << (block % 64)
	s.count++
	return true
}

// Len counts the blocks.
func (s *Set) Len() int64 { return s.count }
