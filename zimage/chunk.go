// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"sort"

	"github.com/zos-node/zos/zimage/extent"
)

// Check holds bytes against a chunk's id and size.
func (c Chunk) Check(plain []byte) error { return checkChunk(plain, c) }

// ChunksOf are the places of the chunks that hold blocks of a list, each once, in
// the order in which it comes to them. Blocks that the disk does not have count
// for nothing.
func (m Manifest) ChunksOf(l extent.List) []int {
	out, seen := []int{}, make([]bool, len(m.Chunks))
	for _, e := range l {
		from, to := e.First*extent.BlockSize, e.End()*extent.BlockSize
		for i := sort.Search(len(m.Chunks), func(i int) bool { c := m.Chunks[i]; return c.Off+c.Size > from }); i < len(m.Chunks) && m.Chunks[i].Off < to; i++ {
			if !seen[i] {
				seen[i] = true
				out = append(out, i)
			}
		}
	}
	return out
}

// Chunks gives a function that gets single chunks from the mirrors, checked.
// What it learns of the mirrors it keeps from call to call; several
// goroutines may call it at once.
func (f *Fetcher) Chunks() (func(ctx context.Context, c Chunk) ([]byte, error), error) {
	s, err := f.session()
	if err != nil {
		return nil, err
	}
	return s.chunk, nil
}
