// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/verity"
)

// disk is a manifest of so much data, in pieces of metaChunk and then of
// MaxChunk, and its tree.
func disk(meta int, data int64) zimage.Manifest {
	m := zimage.Manifest{DataSize: data, DiskSize: data + verity.TreeSize(data)}
	for at := int64(0); at < m.DiskSize; {
		size, end := int64(zimage.MaxChunk), m.DataSize
		if len(m.Chunks) < meta || at >= m.DataSize {
			size = metaChunk
		}
		if at >= m.DataSize {
			end = m.DiskSize
		}
		size = min(size, end-at)
		m.Chunks = append(m.Chunks, zimage.Chunk{Off: at, Size: size})
		at += size
	}
	return m
}

// TestPlan: what dm-verity reads with each block of data is fetched with it,
// or is there before a guest starts, and not much else is.
func TestPlan(t *testing.T) {
	for _, size := range []int64{4096, 8192, covered, covered + 4096, 40 << 20, 64<<20 + 4096, 700<<20 + 8192} {
		m := disk(3, size)
		p := newPlan(m)
		head := p.head()
		if again := slices.Compact(slices.Sorted(slices.Values(head))); len(again) != len(head) || head[0] != 0 {
			t.Errorf("%d bytes: head %v", size, head)
		}
		if most := 2 + 2*(verityCluster/metaChunk+2); len(head) > most {
			t.Errorf("%d bytes: %d chunks before a start, at most %d are expected", size, len(head), most)
		}
		for i, c := range m.Chunks {
			beside := p.beside(i)
			if c.Off >= size {
				if beside != nil {
					t.Errorf("%d bytes: %v beside chunk %d of the tree", size, beside, i)
				}
				continue
			}
			if most := 2 * (verityCluster/metaChunk + 2); len(beside) > most || slices.Contains(beside, i) {
				t.Errorf("%d bytes: %v beside chunk %d", size, beside, i)
			}
			for _, at := range needs(size, c.Off, c.Size) {
				if k := p.chunks(at, at+1)[0]; k != i && !slices.Contains(beside, k) && !slices.Contains(head, k) {
					t.Fatalf("%d bytes: chunk %d needs byte %d, in chunk %d; head %v, beside it %v", size, i, at, k, head, beside)
				}
			}
		}
	}
}

// needs are the bytes of the tree that dm-verity reads for bytes of data, as
// drivers/md/dm-verity-target.c has them: from the root's level down, and of
// level 0 the aligned cluster.
func needs(data, off, n int64) (at []int64) {
	var blocks []int64
	for left := data / verity.BlockSize; left > 1; {
		left = (left + 127) / 128
		blocks = append(blocks, left)
	}
	start := data
	for level := len(blocks) - 1; level >= 0; level-- {
		from, to := off/verity.BlockSize>>(7*(level+1)), (off+n-1)/verity.BlockSize>>(7*(level+1))
		for b := start/verity.BlockSize + from; b <= start/verity.BlockSize+to; b++ {
			at = append(at, b*verity.BlockSize)
			if level == 0 {
				first := b &^ (verityCluster/verity.BlockSize - 1)
				for k := first; k < first+verityCluster/verity.BlockSize; k++ {
					if k*verity.BlockSize < data+verity.TreeSize(data) {
						at = append(at, k*verity.BlockSize)
					}
				}
			}
		}
		start += blocks[level] * verity.BlockSize
	}
	return at
}

// TestLeaves: the hash of a block stands where the plan looks for it.
func TestLeaves(t *testing.T) {
	const size = 70 << 20
	f, err := os.Create(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := verity.NewBuilder(f, size)
	if err != nil {
		t.Fatal(err)
	}
	p := newPlan(disk(3, size))
	for _, off := range []int64{0, covered, size - 4096} {
		block := make([]byte, verity.BlockSize)
		for i := range block {
			block[i] = byte(rand.Int())
		}
		if err := b.Add(off, block); err != nil {
			t.Fatal(err)
		}
		want, got := make([]byte, verity.HashSize), make([]byte, verity.HashSize)
		if err := verity.Leaves(want, block); err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(got, p.leaves-size+off/verity.BlockSize*verity.HashSize); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the hash of the block at %d is elsewhere: %v", off, err)
		}
	}
}

// TestOrder: the head, then the trace, of which nothing that there is not is
// wanted, or, without one, the other metadata.
func TestOrder(t *testing.T) {
	p := newPlan(disk(3, 700<<20))
	head := p.head()
	if got, first := p.order([]int{2, -1, len(p.m.Chunks), 1 << 40, 900}); !slices.Equal(got, append(slices.Clone(head), 2, 900)) || first != len(head) {
		t.Errorf("order %v, of which %d are not of the trace; the head is %v", got, first, head)
	}
	if got, first := p.order(nil); !slices.Equal(got, append(slices.Clone(head), 1, 2)) || first != len(got) {
		t.Errorf("without a trace: order %v, of which %d are not of one; the head is %v", got, first, head)
	}
}
