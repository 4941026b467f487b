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
// A Builder makes the tree in a file, from blocks in any order, and Check holds
// a whole disk against its root; neither keeps hashes in memory, which would
// grow with the data: they are a 128th of it.
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
