// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

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
	results map[txID]result
	under   tiles.Policy   // of the root that the log ends with now
	ours    statement      // about its tree, once writing has finished
	writing *tiles.Writing // nil if the block has no leaves
}

// begin starts to write what a block came to: new roots of trust, and then its
// leaves, while our signature of the tree is made. CometBFT has decided the block
// and has it on the disk; what it saves beside that goes on at the same time.
// Readers see nothing of it until Commit.
func (a *app) begin(leaves [][]byte, roots map[int64][]byte) error {
	if len(leaves) == 0 {
		return nil
	}
	for version, envelope := range roots {
		if err := a.writer.WriteRoot(version, envelope); err != nil {
			return err
		}
	}
	size, root := a.state.Size(), a.state.RootHash()
	block := &a.block
	block.under = a.state.Root().Checkpoints()
	block.writing = a.writer.Begin(leaves, func(tree tlog.Tree) (checkpoint []byte, err error) {
		if tree.N != size || hex.EncodeToString(tree.Hash[:]) != root {
			return nil, fmt.Errorf("the tiles have root %s at size %d, the state has %s at %d", tree.Hash, tree.N, root, size)
		}
		block.ours, err = a.cosign.sign(tree)
		if err != nil {
			return nil, err
		}
		return block.ours.checkpoint(block.under), nil
	})
	return nil
}

// Commit returns when the block's leaves are on the disk. Then others hear of our
// signature of the tree. The checkpoint follows when enough validators signed the
// same, at once if we are enough; only then are receipts given.
func (a *app) Commit(context.Context, *abci.RequestCommit) (*abci.ResponseCommit, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.written(); err != nil {
		a.fail(fmt.Errorf("write the log: %w", err))
		return nil, err
	}
	wrote := a.block.writing != nil
	for id, res := range a.block.results {
		for _, w := range a.waiting[id] {
			w <- res
		}
		delete(a.waiting, id)
	}
	a.block = finalized{}
	close(a.news)
	a.news = make(chan struct{})
	if wrote {
		a.tell() // last: whoever waits for a receipt is to be awake first
	}
	return &abci.ResponseCommit{RetainHeight: a.retain.Swap(0)}, nil
}

// written waits for what begin began.
func (a *app) written() error {
	if a.block.writing == nil {
		return nil
	}
	alone, err := a.block.writing.Finish()
	if err != nil {
		return err
	}
	// Nobody hears of our signature before the tree is on the disk.
	a.cosign.say(a.block.ours, a.now())
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
		a.pending = append(a.pending, pending{tree, a.block.under})
	}
	if size := a.state.Size(); a.snap == nil && size-a.snapped >= a.every {
		a.snap, a.snapped = a.state.Clone(), size
	}
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

// staysFresh is how old our signature of the newest tree gets on an idle ledger.
const staysFresh = time.Minute

// freshen signs the newest tree anew when nothing was ordered for a while, and
// shows its checkpoint with the newest signatures of all: their times tell a reader
// an idle log from a copy that somebody holds back.
func (a *app) freshen() {
	signed, size, err := a.anew()
	if err == nil && signed != nil {
		err = a.writer.Show(size, signed)
	}
	if err != nil {
		a.fail(fmt.Errorf("sign a checkpoint anew: %w", err))
	}
}

// anew is the checkpoint that freshen shows: nil if it is not time for one, or too
// few of the others are there, which is said elsewhere.
func (a *app) anew() (signed []byte, size int64, err error) {
	a.mu.RLock() // so that no block comes in between
	defer a.mu.RUnlock()
	s, said := a.cosign.lately()
	size = a.durable
	if s.Size != size || a.state.Size() != size || a.now().Sub(said) < a.fresh {
		return nil, 0, nil
	}
	t, err := s.tree()
	if err == nil {
		s, err = a.cosign.sign(t)
	}
	if err != nil {
		return nil, 0, err
	}
	a.cosign.say(s, a.now())
	if signed, err = a.cosign.checkpoint(a.state.Root().Checkpoints(), t); err != nil {
		return nil, 0, nil
	}
	return signed, size, nil
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
