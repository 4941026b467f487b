// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
)

// result is what Submit waits for.
type result struct {
	receipt ledger.Receipt
	before  bool // said in an earlier entry, whose index is in receipt
	err     error
}

type txID [sha256.Size]byte

// app is the state machine behind CometBFT.
type app struct {
	abci.BaseApplication
	writer *tiles.Writer
	cosign *collector
	cache  *ledger.Cache
	now    func() time.Time
	live   atomic.Bool // no block is being replayed any more
	fail   func(error)
	admit  func(peer string) error // who may connect on the mesh
	tell   func()                  // that there is a new statement of ours
	log    *slog.Logger
	double atomic.Int64 // proofs that a validator voted for two blocks at once

	mu        sync.RWMutex
	state     *ledger.State // with the block that is being committed
	durable   int64         // entries on the disk, under a cosigned checkpoint
	pending   []pending     // trees on the disk that wait for cosignatures, oldest first
	waitingMs int64         // when the oldest pending one began to wait, by our clock
	news      chan struct{} // closed at each commit and each checkpoint
	waiting   map[txID][]chan result
	block     finalized
	asked     struct { // which height's blocks are proposed, and since when
		height int64
		first  time.Time
	}
	fresh   time.Duration // after which an idle log is signed anew
	every   int64         // entries between two snapshots
	snapped int64         // size of the newest snapshot
	snap    *ledger.State // one that waits for its checkpoint
	retain  atomic.Int64  // first block that CometBFT has to keep, 0 for all
}

// appHash covers the log and everything that the state says of it.
func appHash(s *ledger.State) ([]byte, error) {
	tree, err := hex.DecodeString(s.RootHash())
	if err != nil {
		return nil, fmt.Errorf("tree root: %w", err)
	}
	state, err := hex.DecodeString(s.StateRoot())
	if err != nil {
		return nil, fmt.Errorf("state root: %w", err)
	}
	sum := sha256.Sum256(append(tree, state...))
	return sum[:], nil
}

// Info tells CometBFT where the log ends. Blocks after that, which had no
// leaf, are replayed and come out the same.
func (a *app) Info(context.Context, *abci.RequestInfo) (*abci.ResponseInfo, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	hash, err := appHash(a.state)
	if err != nil {
		return nil, err
	}
	return &abci.ResponseInfo{LastBlockHeight: a.state.Height(), LastBlockAppHash: hash}, nil
}

// InitChain has nothing to do: Init wrote the log's first entries.
func (a *app) InitChain(context.Context, *abci.RequestInitChain) (*abci.ResponseInitChain, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	hash, err := appHash(a.state)
	if err != nil {
		return nil, err
	}
	return &abci.ResponseInitChain{AppHash: hash}, nil
}

// CheckTx keeps what is no entry out of the mempool.
func (a *app) CheckTx(_ context.Context, r *abci.RequestCheckTx) (*abci.ResponseCheckTx, error) {
	if err := a.admissible(r.Tx); err != nil {
		return &abci.ResponseCheckTx{Code: 1, Log: err.Error()}, nil
	}
	return &abci.ResponseCheckTx{}, nil
}

// admissible says whether a transaction may be in a block beside its time.
func (a *app) admissible(tx []byte) error {
	if isTick(tx) {
		return nil
	}
	_, _, err := a.cache.Open(tx)
	return err
}

func (a *app) ledgerTime() int64 {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.state.TimeMs()
}

// FinalizeBlock applies a block that was decided, and starts to write what it
// came to. That depends on the block alone.
func (a *app) FinalizeBlock(_ context.Context, r *abci.RequestFinalizeBlock) (*abci.ResponseFinalizeBlock, error) {
	if len(r.Txs) == 0 {
		return nil, fmt.Errorf("block %d has no time", r.Height)
	}
	t, err := parseTime(r.Txs[0])
	if err != nil {
		return nil, fmt.Errorf("block %d: %w", r.Height, err)
	}
	var entries [][]byte
	var place []int
	for i, tx := range r.Txs[1:] {
		if !isTick(tx) {
			entries, place = append(entries, tx), append(place, i+1)
		}
	}
	for _, m := range r.Misbehavior {
		a.double.Add(1)
		a.log.Error("a validator is proven to have voted for two blocks at once: its key is in two places, or it is dishonest", "part", "ledger",
			"consensus", hex.EncodeToString(m.Validator.Address), "height", m.Height)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.state.Root()
	version := before.Version
	out := a.state.Apply(r.Height, t, entries)
	a.block = finalized{results: map[txID]result{}}
	roots := map[int64][]byte{}
	for version++; a.state.RootEnvelope(version) != nil; version++ {
		roots[version] = a.state.RootEnvelope(version)
	}
	if err := a.begin(out.Leaves, roots); err != nil {
		a.fail(fmt.Errorf("write the log: %w", err))
		return nil, err
	}
	answers := make([]*abci.ExecTxResult, len(r.Txs))
	for i := range answers {
		answers[i] = &abci.ExecTxResult{}
	}
	for i, tx := range entries {
		res := result{receipt: ledger.Receipt{Index: out.Indexes[i], Size: a.state.Size(), TimeMs: a.state.TimeMs()}}
		if err := out.Refused[i]; err != nil {
			answers[place[i]].Code = 1
			res.err = err
			var refused *ledger.Refused
			if errors.As(err, &refused) && refused.Index >= 0 {
				res.receipt.Index, res.before, res.err = refused.Index, true, nil
			}
		}
		a.block.results[sha256.Sum256(tx)] = res
	}
	hash, err := appHash(a.state)
	if err != nil {
		return nil, err
	}
	updates, err := validatorUpdates(before, a.state.Root())
	if err != nil {
		return nil, err
	}
	return &abci.ResponseFinalizeBlock{TxResults: answers, AppHash: hash, ValidatorUpdates: updates}, nil
}

// validatorUpdates is what a rotation changes among those who vote.
func validatorUpdates(from, to *ledger.Root) ([]abci.ValidatorUpdate, error) {
	if from == to {
		return nil, nil
	}
	power := map[string]int64{}
	for _, v := range from.Log.Validators {
		power[v.Consensus] = 0
	}
	for _, v := range to.Log.Validators {
		if _, there := power[v.Consensus]; there {
			delete(power, v.Consensus)
		} else {
			power[v.Consensus] = 1
		}
	}
	var all []abci.ValidatorUpdate
	for _, text := range slices.Sorted(maps.Keys(power)) {
		key, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("consensus key %q: %w", text, err)
		}
		all = append(all, abci.UpdateValidator(key, power[text], ""))
	}
	return all, nil
}

// Query answers CometBFT's question whether a peer may connect; there are no
// others.
func (a *app) Query(_ context.Context, r *abci.RequestQuery) (*abci.ResponseQuery, error) {
	id, ok := strings.CutPrefix(r.Path, "/p2p/filter/id/")
	if !ok {
		return &abci.ResponseQuery{}, nil // an address says nothing of who it is
	}
	if err := a.admit(id); err != nil {
		return &abci.ResponseQuery{Code: 1, Log: err.Error()}, nil
	}
	return &abci.ResponseQuery{}, nil
}

// wait registers for the result of a transaction.
func (a *app) wait(id txID) chan result {
	w := make(chan result, 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting[id] = append(a.waiting[id], w)
	return w
}

// forget takes a waiter out again.
func (a *app) forget(id txID, w chan result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var rest []chan result
	for _, other := range a.waiting[id] {
		if other != w {
			rest = append(rest, other)
		}
	}
	if a.waiting[id] = rest; rest == nil {
		delete(a.waiting, id)
	}
}
