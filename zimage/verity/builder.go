// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
)

// File is where a Builder keeps its tree; an *os.File is one. What has not
// been written reads as zeros.
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

// Builder builds a tree in a file, from data blocks in any order.
type Builder struct {
	file  File
	sizes []int64 // hash blocks per level, level 0 first
	size  int64   // of the tree
	data  int64

	mu   sync.Mutex
	only [HashSize]byte // the root of data of a single block, which has no tree
}

// NewBuilder makes the file as long as the tree over so many bytes of data.
func NewBuilder(file File, dataSize int64) (*Builder, error) {
	if dataSize <= 0 || dataSize%BlockSize != 0 {
		return nil, fmt.Errorf("tree over %d bytes: %w", dataSize, ErrSize)
	}
	b := &Builder{file: file, sizes: levels(dataSize / BlockSize), size: TreeSize(dataSize), data: dataSize}
	if err := file.Truncate(b.size); err != nil {
		return nil, fmt.Errorf("file of the hash tree: %w", err)
	}
	return b, nil
}

// Size is the length of the tree.
func (b *Builder) Size() int64 { return b.size }

// Add takes the whole blocks that stand at an offset of the data. Several
// goroutines may add at once.
func (b *Builder) Add(off int64, blocks []byte) error {
	if off < 0 || off%BlockSize != 0 || off+int64(len(blocks)) > b.data {
		return fmt.Errorf("%d bytes of data at %d of %d: %w", len(blocks), off, b.data, ErrSize)
	}
	leaves := make([]byte, len(blocks)/BlockSize*HashSize)
	if err := Leaves(leaves, blocks); err != nil {
		return err
	}
	if len(b.sizes) == 0 {
		b.mu.Lock()
		defer b.mu.Unlock()
		copy(b.only[:], leaves)
		return nil
	}
	return b.put(b.size-b.sizes[0]*BlockSize+off/BlockSize*HashSize, leaves)
}

func (b *Builder) put(at int64, hashes []byte) error {
	if _, err := b.file.WriteAt(hashes, at); err != nil {
		return fmt.Errorf("write hash tree: %w", err)
	}
	return nil
}

// stride is how much of a level is read at once.
const stride = 64 * BlockSize

// Root builds the levels above the leaves and gives the root hash. All data
// must have been added. The file then holds the tree.
func (b *Builder) Root() ([HashSize]byte, error) {
	if len(b.sizes) == 0 {
		return b.only, nil
	}
	buf, end := make([]byte, stride), b.size
	for i, blocks := range b.sizes {
		start := end - blocks*BlockSize
		if i+1 == len(b.sizes) { // one block
			if _, err := b.file.ReadAt(buf[:BlockSize], start); err != nil {
				return [HashSize]byte{}, fmt.Errorf("read hash tree: %w", err)
			}
			return sha256.Sum256(buf[:BlockSize]), nil
		}
		above := start - b.sizes[i+1]*BlockSize
		for at := start; at < end; at += stride {
			part := buf[:min(stride, end-at)]
			if _, err := b.file.ReadAt(part, at); err != nil {
				return [HashSize]byte{}, fmt.Errorf("read hash tree: %w", err)
			}
			hashes := make([]byte, len(part)/BlockSize*HashSize)
			if err := Leaves(hashes, part); err != nil {
				return [HashSize]byte{}, err
			}
			if err := b.put(above+(at-start)/BlockSize*HashSize, hashes); err != nil {
				return [HashSize]byte{}, err
			}
		}
		end = start
	}
	return [HashSize]byte{}, ErrSize // not reached: the last level has one block
}
