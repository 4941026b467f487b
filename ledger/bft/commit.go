// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"

	abci "github.com/cometbft/cometbft/abci/types"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger/tiles"
)

// pending is a tree that wants a checkpoint, under the root that its log ends
// with.
type pending struct {
	tree  tlog.Tree
	under tiles.Policy
}

// keepPending bounds what waits: only the newest tree matters in the end.
const keepPending = keepStatements

// finalized is the block between FinalizeBlock and Commit.
type finalized struct {
	leaves  [][]byte
	roots   map[int64][]byte // new roots of trust
	results map[txID]result
}

// Commit writes the block's leaves: new roots of trust first, then tiles, then
// comes our signature of the tree. The checkpoint follows when enough validators
// signed the same, at once if we are enough; only then are receipts given.
func (a *app) Commit(context.Context, *abci.RequestCommit) (*abci.ResponseCommit, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.write(); err != nil {
		a.fail(fmt.Errorf("write the log: %w", err))
		return nil, err
	}
	for id, res := range a.block.results {
		for _, w := range a.waiting[id] {
			w <- res
		}
		delete(a.waiting, id)
	}
	a.block = finalized{}
	close(a.news)
	a.news = make(chan struct{})
	return &abci.ResponseCommit{RetainHeight: a.retain.Swap(0)}, nil
}

func (a *app) write() error {
	if len(a.block.leaves) == 0 {
		return nil
	}
	for version, envelope := range a.block.roots {
		if err := a.writer.WriteRoot(version, envelope); err != nil {
			return err
		}
	}
	under := a.state.Root().Checkpoints()
	var ours statement
	alone, err := a.writer.AppendSigned(a.block.leaves, func(tree tlog.Tree) (checkpoint []byte, err error) {
		if tree.N != a.state.Size() || hex.EncodeToString(tree.Hash[:]) != a.state.RootHash() {
			return nil, fmt.Errorf("the tiles have root %s at size %d, the state has %s at %d", tree.Hash, tree.N, a.state.RootHash(), a.state.Size())
		}
		ours, err = a.cosign.sign(tree)
		if err != nil {
			return nil, err
		}
		return ours.checkpoint(under), nil
	})
	if err != nil {
		return err
	}
	// Nobody hears of our signature before the tree is on the disk.
	a.cosign.say(ours, a.now())
	switch tree := a.writer.Head(); {
	case alone:
		a.published(tree.N)
	case len(a.pending) == 0:
		a.waitingMs = a.now().UnixMilli()
		fallthrough
	default:
		if len(a.pending) == keepPending {
			a.pending = slices.Clone(a.pending[1:])
		}
		a.pending = append(a.pending, pending{tree, under})
	}
	if size := a.state.Size(); a.snap == nil && size-a.snapped >= a.every {
		a.snap, a.snapped = a.state.Clone(), size
	}
	a.tell()
	return nil
}

// publish shows the checkpoint of the newest tree that enough validators signed,
// if there is one that is not published yet. Entries are ordered meanwhile.
func (a *app) publish() {
	a.mu.RLock()
	waiting := a.pending
	a.mu.RUnlock()
	for _, p := range slices.Backward(waiting) {
		signed, err := a.cosign.checkpoint(p.under, p.tree)
		if err != nil {
			continue // not yet
		}
		if err := a.writer.Show(p.tree.N, signed); err != nil {
			a.fail(fmt.Errorf("publish a checkpoint: %w", err))
			return
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.published(p.tree.N)
		close(a.news)
		a.news = make(chan struct{})
		return
	}
}

// published notes that readers see a checkpoint.
func (a *app) published(size int64) {
	a.durable = max(a.durable, size)
	later := slices.IndexFunc(a.pending, func(p pending) bool { return p.tree.N > size })
	if later < 0 {
		later = len(a.pending)
	}
	a.pending, a.waitingMs = slices.Clone(a.pending[later:]), a.now().UnixMilli()
}
