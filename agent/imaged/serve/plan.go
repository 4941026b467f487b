// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"slices"
	"sort"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/verity"
)

const (
	// metaChunk is the size of the pieces of metadata, which lead the disk; a run
	// of files at their end that is as long does no harm.
	metaChunk = 64 << 10
	// verityCluster is what dm-verity reads of the hashes of data at once, in
	// bytes, beginning at a multiple of it: also of what lies before the tree. A
	// read that waited for that would wait for data that nobody wants.
	verityCluster = 256 << 10
	// covered is how much data one block of hashes stands for.
	covered = verity.BlockSize / verity.HashSize * verity.BlockSize
)

// plan says in which order an image is fetched. The tree is not fetched
// whole, which of a large image takes as long as a start: its upper levels
// come first, and of the hashes of data those that stand for it come with it.
type plan struct {
	m      zimage.Manifest
	leaves int64 // offset of the hashes of data
}

func newPlan(m zimage.Manifest) *plan {
	hashes := (m.DataSize + covered - 1) / covered * verity.BlockSize
	return &plan{m: m, leaves: m.DataSize + max(verity.TreeSize(m.DataSize)-hashes, 0)}
}

// head is what has to be there before a guest may start, since every start
// reads it first: the first metadata and the hashes above it.
func (p *plan) head() []int {
	head := append([]int{0}, p.chunks(p.m.DataSize, p.leaves)...)
	for _, i := range p.beside(0) {
		if !slices.Contains(head, i) {
			head = append(head, i)
		}
	}
	return head
}

// order is the head and then the trace, of which nothing that there is not is
// wanted. Without a trace it is the rest of the metadata: finding files is what
// waits most often on a long line. An earlier start has read what it needs of
// that. first is how many in front are no part of the trace.
func (p *plan) order(trace []int) (order []int, first int) {
	order = p.head()
	if len(trace) == 0 {
		for i := 1; i < len(p.m.Chunks) && p.m.Chunks[i].Size == metaChunk; i++ {
			order = append(order, i)
		}
		return order, len(order)
	}
	first = len(order)
	for _, i := range trace {
		if i >= 0 && i < len(p.m.Chunks) { // it is a hint
			order = append(order, i)
		}
	}
	return order, first
}

// beside are the chunks that dm-verity reads when it reads a chunk of data:
// of its hashes, and what stands in the same clusters.
func (p *plan) beside(i int) []int {
	c := p.m.Chunks[i]
	if c.Off >= p.m.DataSize {
		return nil
	}
	first := p.leaves + c.Off/covered*verity.BlockSize
	last := p.leaves + (c.Off+c.Size-1)/covered*verity.BlockSize
	out := p.chunks(first/verityCluster*verityCluster, (last/verityCluster+1)*verityCluster)
	return slices.DeleteFunc(out, func(k int) bool { return k == i })
}

// chunks are those that hold bytes from and up to two offsets.
func (p *plan) chunks(from, to int64) (out []int) {
	all := p.m.Chunks
	for i := sort.Search(len(all), func(i int) bool { return all[i].Off+all[i].Size > from }); i < len(all) && all[i].Off < to; i++ {
		out = append(out, i)
	}
	return out
}
