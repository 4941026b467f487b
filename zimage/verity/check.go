// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// ErrCorrupt means a disk whose data, tree and root do not belong together.
var ErrCorrupt = errors.New("the disk is not what its verity root says")

// Check reads a whole disk, data and tree behind it, and holds every block of
// both against the root, as the kernel would: each against the block of hashes
// above it. Several goroutines do that, each with one buffer of half a MiB,
// so memory does not grow with the disk. before, which may be nil, is called
// ahead of each read with the number of bytes; an error of it ends the check.
func Check(disk io.ReaderAt, dataSize int64, root [HashSize]byte, goroutines int, before func(bytes int) error) error {
	if dataSize <= 0 || dataSize%BlockSize != 0 {
		return fmt.Errorf("tree over %d bytes: %w", dataSize, ErrSize)
	}
	c := checker{disk, before}
	sizes := levels(dataSize / BlockSize)
	below, size, at := int64(0), dataSize, dataSize+TreeSize(dataSize)
	for _, blocks := range sizes {
		at -= blocks * BlockSize
		if err := c.level(below, size, at, goroutines); err != nil {
			return err
		}
		below, size = at, blocks*BlockSize
	}
	top := make([]byte, BlockSize) // the only block of the last level
	if err := c.read(top, below); err != nil {
		return err
	}
	if got := sha256.Sum256(top); got != root {
		return fmt.Errorf("%w: the hash tree has verity root %s, want %s", ErrCorrupt, hex.EncodeToString(got[:]), hex.EncodeToString(root[:]))
	}
	return nil
}

type checker struct {
	disk   io.ReaderAt
	before func(int) error
}

func (c checker) read(b []byte, at int64) error {
	if c.before != nil {
		if err := c.before(len(b)); err != nil {
			return err
		}
	}
	if _, err := c.disk.ReadAt(b, at); err != nil {
		return fmt.Errorf("read at %d: %w", at, err)
	}
	return nil
}

// level holds the blocks of one level, or of the data, against their hashes.
func (c checker) level(below, size, above int64, goroutines int) error {
	const span = perBlock * BlockSize // what one block of hashes is about
	var next atomic.Int64             // the block of hashes that nobody has taken yet
	var g errgroup.Group
	for range max(goroutines, 1) {
		g.Go(func() error {
			buf, want, got := make([]byte, span), make([]byte, BlockSize), make([]byte, BlockSize)
			for {
				i := next.Add(1) - 1
				if i*span >= size {
					return nil
				}
				part := buf[:min(span, size-i*span)]
				if err := errors.Join(c.read(part, below+i*span), c.read(want, above+i*BlockSize)); err != nil {
					return err
				}
				n := len(part) / BlockSize * HashSize
				clear(got[n:]) // what no hash fills is zero
				if err := Leaves(got[:n], part); err != nil {
					return err
				}
				if !bytes.Equal(got, want) {
					return fmt.Errorf("%w: %s", ErrCorrupt, differ(got, want, n, below+i*span, above+i*BlockSize))
				}
			}
		})
	}
	return g.Wait()
}

// differ says which block it is; of data and hash nobody knows which is wrong
// until the levels above are compared.
func differ(got, want []byte, n int, below, above int64) string {
	for i := 0; i < n; i += HashSize {
		if !bytes.Equal(got[i:i+HashSize], want[i:i+HashSize]) {
			return fmt.Sprintf("the block at byte %d is not what the hash tree says of it", below+int64(i/HashSize)*BlockSize)
		}
	}
	return fmt.Sprintf("the hash tree's block at byte %d does not end in zeros", above)
}
