// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"fmt"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
)

// receipt reads from a log of size entries what the receipt of the entry at
// index said: the size and the time of the entry's own block, whose leaf is
// the first one after it. Who submits again gets the same receipt again.
func receipt(dir tiles.Dir, index, size int64) (ledger.Receipt, error) {
	for n := index / tiles.Width; n*tiles.Width < size; n++ {
		w := int(min(size-n*tiles.Width, tiles.Width))
		path := tiles.BundlePath(n, w)
		b, err := dir.Read(path)
		if err != nil {
			return ledger.Receipt{}, fmt.Errorf("receipt of entry %d: %w", index, err)
		}
		entries, _, err := tiles.CutBundle(b, w)
		if err != nil {
			return ledger.Receipt{}, fmt.Errorf("receipt of entry %d: %s: %w", index, path, err)
		}
		for i, leaf := range entries {
			at := n*tiles.Width + int64(i)
			if at <= index || !ledger.IsBlock(leaf) {
				continue
			}
			e, err := ledger.Decode(leaf)
			if err != nil {
				return ledger.Receipt{}, fmt.Errorf("receipt of entry %d: block leaf %d: %w", index, at, err)
			}
			block, ok := e.Payload.(*ledger.Block)
			if !ok {
				return ledger.Receipt{}, fmt.Errorf("receipt of entry %d: leaf %d has a %T, want a block", index, at, e.Payload)
			}
			return ledger.Receipt{Index: index, Size: at + 1, TimeMs: block.TimeMs}, nil
		}
	}
	return ledger.Receipt{}, fmt.Errorf("receipt of entry %d: no block ends after it in a log of %d entries", index, size)
}
