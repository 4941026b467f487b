// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"crypto/sha256"
	"fmt"
)

// Prover holds single blocks of a disk, data and tree, against its root, as the
// kernel does: each against the block of hashes above it, which must have been
// proven before. It keeps the blocks of the tree.
type Prover struct {
	data   int64 // blocks
	levels []level
	root   [HashSize]byte
	known  map[int64][]byte
}

// level of the tree, level 0 first.
type level struct{ first, blocks int64 }

// NewProver is for a disk of so many bytes of data and the tree behind them.
func NewProver(dataSize int64, root [HashSize]byte) (*Prover, error) {
	if dataSize <= 0 || dataSize%BlockSize != 0 {
		return nil, fmt.Errorf("tree over %d bytes: %w", dataSize, ErrSize)
	}
	p := &Prover{data: dataSize / BlockSize, root: root, known: map[int64][]byte{}}
	at := (dataSize + TreeSize(dataSize)) / BlockSize
	for _, blocks := range levels(p.data) {
		at -= blocks
		p.levels = append(p.levels, level{at, blocks})
	}
	return p, nil
}

// Blocks is the disk's length.
func (p *Prover) Blocks() int64 { return p.data + TreeSize(p.data*BlockSize)/BlockSize }

// IsData tells a block of data from one of hashes.
func (p *Prover) IsData(block int64) bool { return block < p.data }

// Above is the block that holds the hash of another, and where in it; false is
// that the root is that hash.
func (p *Prover) Above(block int64) (above int64, at int, ok bool) {
	below := level{0, p.data}
	for _, l := range p.levels {
		if block >= below.first && block < below.first+below.blocks {
			i := block - below.first
			return l.first + i/perBlock, int(i%perBlock) * HashSize, true
		}
		below = l
	}
	return 0, 0, false
}

// Prove says with an ErrCorrupt that a block is not what the root demands, or
// that what it hangs on was not proven before.
func (p *Prover) Prove(block int64, b []byte) error {
	if block < 0 || block >= p.Blocks() || len(b) != BlockSize {
		return fmt.Errorf("%w: %d bytes for block %d of %d", ErrCorrupt, len(b), block, p.Blocks())
	}
	want := p.root[:]
	if above, at, ok := p.Above(block); ok {
		hashes := p.known[above]
		if hashes == nil {
			return fmt.Errorf("%w: block %d comes before block %d, which has its hash", ErrCorrupt, block, above)
		}
		want = hashes[at : at+HashSize]
	}
	if got := sha256.Sum256(b); !bytes.Equal(got[:], want) {
		return fmt.Errorf("%w: block %d hashes to %x, want %x", ErrCorrupt, block, got, want)
	}
	if !p.IsData(block) {
		p.known[block] = bytes.Clone(b)
	}
	return nil
}

// Proven counts the blocks of the tree that it keeps.
func (p *Prover) Proven() int { return len(p.known) }
