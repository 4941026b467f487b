// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"github.com/zos-node/zos/zimage/erofs"
)

// smallChunk is the size of the pieces of metadata and tree: a reader wants
// them early and in no order.
const smallChunk = 64 << 10

// cut says where chunks begin and end. Borders follow the files, so that a
// file that two images share is the same chunks in both, wherever it lies: a
// file of whole blocks has chunks of its own, counted from its start; smaller
// files are packed together.
func cut(l erofs.Layout, diskSize int64) []Chunk {
	var out []Chunk
	pieces := func(from, to, size int64) {
		for ; from < to; from += size {
			out = append(out, Chunk{Off: from, Size: min(size, to-from)})
		}
	}
	pieces(0, l.Meta, smallChunk)
	start, end := l.Meta, l.Meta // the run of small files
	for _, f := range l.Files {
		size := (f.Size + erofs.BlockSize - 1) / erofs.BlockSize * erofs.BlockSize
		if f.Size >= erofs.InlineBelow {
			pieces(start, end, MaxChunk)
			pieces(f.Off, f.Off+size, MaxChunk)
			start, end = f.Off+size, f.Off+size
			continue
		}
		if end+size-start > MaxChunk {
			pieces(start, end, MaxChunk)
			start = end
		}
		end += size
	}
	pieces(start, end, MaxChunk)
	pieces(l.Size, diskSize, smallChunk)
	return out
}
