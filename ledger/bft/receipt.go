// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
)

// receipt reads from a log of size entries what the receipt of the entry at
// index said: the size and the time of the entry's own block. Who submits again
// gets the same receipt again. If the block was pruned, neither is known any
// more; the proof needs hashes only.
func receipt(dir tiles.Dir, index, size int64) (ledger.Receipt, error) {
	b, err := blockAt(dir, index, size)
	if errors.Is(err, fs.ErrNotExist) && index >= tiles.Width {
		return ledger.Receipt{Index: index}, nil
	}
	if err != nil {
		return ledger.Receipt{}, fmt.Errorf("receipt of entry %d: %w", index, err)
	}
	return ledger.Receipt{Index: index, Size: b.at + 1, TimeMs: b.TimeMs}, nil
}

// blockLeaf is the leaf that ends a block, and where it stands.
type blockLeaf struct {
	*ledger.Block
	at int64
}

// blockAt reads the leaf of the block that an entry is in, which is the first
// one after it, from a log of size entries.
func blockAt(dir tiles.Dir, index, size int64) (blockLeaf, error) {
	for n := index / tiles.Width; n*tiles.Width < size; n++ {
		w := int(min(size-n*tiles.Width, tiles.Width))
		path := tiles.BundlePath(n, w)
		b, err := dir.Read(path)
		if err != nil {
			return blockLeaf{}, err
		}
		entries, _, err := tiles.CutBundle(b, w)
		if err != nil {
			return blockLeaf{}, fmt.Errorf("%s: %w", path, err)
		}
		for i, leaf := range entries {
			at := n*tiles.Width + int64(i)
			if at <= index || !ledger.IsBlock(leaf) {
				continue
			}
			e, err := ledger.Decode(leaf)
			if err != nil {
				return blockLeaf{}, fmt.Errorf("block leaf %d: %w", at, err)
			}
			block, ok := e.Payload.(*ledger.Block)
			if !ok {
				return blockLeaf{}, fmt.Errorf("leaf %d has a %T, want a block", at, e.Payload)
			}
			return blockLeaf{block, at}, nil
		}
	}
	return blockLeaf{}, fmt.Errorf("no block ends after it in a log of %d entries", size)
}
