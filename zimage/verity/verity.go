// SPDX-License-Identifier: Apache-2.0

// Package verity builds dm-verity hash trees of one fixed kind: version 1,
// SHA-256, 4096-byte data and hash blocks, empty salt, no superblock.
//
// The kernel checks a block when it is read: the block's hash must stand in
// level 0 of the tree, the hash of that level-0 block in level 1, and so on
// up to the root hash, which the kernel got from elsewhere. On disk the
// levels stand from the top down, level 0 last. The salt is empty so that
// the same data has the same root everywhere.
//
// A reader of small data hashes blocks in any order with Leaves and then asks
// for the Tree. A Builder does the same in a file, so that memory does not
// grow with the data: the hashes alone are a 128th of it.
package verity

import (
	"crypto/sha256"
	"errors"
	"fmt"
)

const (
	// BlockSize is the size of data blocks and of hash blocks.
	BlockSize = 4096
	// HashSize is the length of a hash; one hash block holds 128.
	HashSize = sha256.Size
	perBlock = BlockSize / HashSize
)

// ErrSize means data that is not whole blocks.
var ErrSize = errors.New("not a multiple of 4096 bytes")

// levels are the numbers of hash blocks per level, level 0 first. Data of a
// single block has none: its root is the block's own hash.
func levels(blocks int64) []int64 {
	var out []int64
	for blocks > 1 {
		blocks = (blocks + perBlock - 1) / perBlock
		out = append(out, blocks)
	}
	return out
}

// TreeSize is the length of the tree over so many bytes of data.
func TreeSize(dataSize int64) int64 {
	var n int64
	for _, blocks := range levels(dataSize / BlockSize) {
		n += blocks * BlockSize
	}
	return n
}

// Leaves hashes whole blocks and writes the hashes to dst.
func Leaves(dst, data []byte) error {
	if len(data)%BlockSize != 0 || len(dst) != len(data)/BlockSize*HashSize {
		return fmt.Errorf("hash %d bytes to %d bytes of leaves: %w", len(data), len(dst), ErrSize)
	}
	for i := 0; i < len(data)/BlockSize; i++ {
		h := sha256.Sum256(data[i*BlockSize : (i+1)*BlockSize])
		copy(dst[i*HashSize:], h[:])
	}
	return nil
}

// Tree builds the tree over the hashes of all data blocks: the bytes that
// follow the data on disk, and the root hash.
func Tree(leaves []byte) (tree []byte, root [HashSize]byte, err error) {
	if len(leaves) == 0 || len(leaves)%HashSize != 0 {
		return nil, root, fmt.Errorf("%d bytes of leaves: %w", len(leaves), ErrSize)
	}
	sizes := levels(int64(len(leaves) / HashSize))
	var total int64
	for _, blocks := range sizes {
		total += blocks * BlockSize
	}
	tree = make([]byte, total)
	hashes, end := leaves, total
	for _, blocks := range sizes {
		level := tree[end-blocks*BlockSize : end]
		copy(level, hashes) // what remains of the last block stays zero
		hashes = make([]byte, blocks*HashSize)
		if err := Leaves(hashes, level); err != nil {
			return nil, root, err
		}
		end -= blocks * BlockSize
	}
	copy(root[:], hashes)
	return tree, root, nil
}
