// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/zos-node/zos/ledger/tiles"
	"golang.org/x/mod/sumdb/tlog"
)

// Why a ledger was not believed, or could not be asked. Use errors.Is.
var (
	ErrForged      = errors.New("ledger is forged")            // a signature, tile or entry is not right
	ErrRollback    = errors.New("ledger was rolled back")      // it is older than what was seen before
	ErrFork        = errors.New("ledger was forked")           // it has another history than what was seen before
	ErrUnreachable = errors.New("ledger could not be reached") // no answer, or none that could be used
	ErrPruned      = errors.New("ledger was pruned")           // it has the hashes of old entries, not themselves
	ErrFrozen      = errors.New("ledger stands still")         // a block that it promised has not come
)

func forged(s source, err error) error {
	if errors.Is(err, ErrUnreachable) || errors.Is(err, ErrForged) || errors.Is(err, ErrPruned) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrForged, s, err)
}

// proven reads tiles of one tree from a source. tlog.TileHashReader checks
// them against the tree's root; those that passed are kept.
type proven struct {
	ctx  context.Context
	from source
	kept map[tlog.Tile][]byte
}

func newProven(ctx context.Context, from source, tree tlog.Tree) tlog.HashReader {
	return tlog.TileHashReader(tree, &proven{ctx, from, map[tlog.Tile][]byte{}})
}

func (p *proven) Height() int { return tiles.Height }

func (p *proven) ReadTiles(list []tlog.Tile) ([][]byte, error) {
	all := make([][]byte, len(list))
	for i, t := range list {
		b, ok := p.kept[t]
		if !ok {
			full := t
			full.W = tiles.Width
			var err error
			if b, err = wide(p.ctx, p.from, tiles.Path(t), tiles.Path(full), t.W, tiles.Width*tlog.HashSize); err != nil {
				return nil, err
			}
		}
		all[i] = b
	}
	return all, nil
}

// keptTiles bounds the memory of one pass over a log: 8 MiB.
const keptTiles = 1024

func (p *proven) SaveTiles(list []tlog.Tile, data [][]byte) {
	for i, t := range list {
		if len(p.kept) < keptTiles && (t.L > 0 || t.W < tiles.Width) {
			p.kept[t] = data[i]
		}
	}
}

func trailing(n int) error {
	if n > 0 {
		return fmt.Errorf("has %d bytes too many", n)
	}
	return nil
}

// EntryProof shows that an entry is in a tree.
type EntryProof struct {
	Index int64
	Tree  tlog.Tree
	Proof tlog.RecordProof
}

// Check verifies the proof for an entry's bytes.
func (p EntryProof) Check(raw []byte) error {
	if err := tlog.CheckRecord(p.Proof, p.Tree.N, p.Tree.Hash, p.Index, tlog.RecordHash(raw)); err != nil {
		return fmt.Errorf("%w: entry %d is not in the tree of size %d: %w", ErrForged, p.Index, p.Tree.N, err)
	}
	return nil
}
