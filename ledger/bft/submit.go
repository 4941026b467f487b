// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/mempool"
	cmttypes "github.com/cometbft/cometbft/types"

	"github.com/zos-node/zos/ledger"
)

// orderWait is how long a submitter waits for its entry.
const orderWait = 30 * time.Second

// Submit orders an entry and returns when it is on the disk, under a
// checkpoint that enough validators cosigned. What was said before gets its
// old place.
func (e *Engine) Submit(ctx context.Context, raw []byte) (ledger.Receipt, error) {
	entry, keys, err := e.app.cache.Open(raw)
	if err != nil {
		return ledger.Receipt{}, err
	}
	id := txID(sha256.Sum256(raw))
	w := e.app.wait(id)
	defer e.app.forget(id, w)

	if err := e.catchUp(ctx, entry); err != nil {
		return ledger.Receipt{}, err
	}
	e.app.mu.RLock()
	index, known := e.app.state.Indexed(entry)
	if !known {
		err = e.app.state.Check(e.app.now().UnixMilli(), raw)
	}
	e.app.mu.RUnlock()
	if err != nil {
		return ledger.Receipt{}, err
	}
	if err := e.gather(ctx); err != nil {
		return ledger.Receipt{}, &ledger.Busy{Reason: err.Error(), After: silence}
	}
	late := time.NewTimer(orderWait)
	defer late.Stop()
	if known {
		return e.durable(ctx, late.C, ledger.Receipt{Index: index})
	}
	if err := e.room(); err != nil {
		return ledger.Receipt{}, err
	}
	if err := e.canServe(ctx, entry); err != nil {
		return ledger.Receipt{}, err
	}
	if err := e.quotas.Take(keys, time.Now()); err != nil {
		return ledger.Receipt{}, err
	}
	if err := e.push(raw); err != nil {
		return ledger.Receipt{}, err
	}
	select {
	case r := <-w:
		if r.err != nil {
			return r.receipt, r.err
		}
		if r.before {
			r.receipt.Size = 0 // it has the receipt that it had
		}
		return e.durable(ctx, late.C, r.receipt)
	case <-late.C:
		return ledger.Receipt{}, e.late("ordered")
	case <-ctx.Done():
		return ledger.Receipt{}, ctx.Err()
	case <-e.failed:
		return ledger.Receipt{}, e.Health()
	case <-e.stop:
		return ledger.Receipt{}, errors.New("the ledger is stopping; submit again")
	}
}

// late is the answer to one who waited long enough.
func (e *Engine) late(what string) error {
	reason := fmt.Sprintf("the entry was not %s within %s", what, orderWait)
	if err := e.quorum(); err != nil {
		reason += ": " + err.Error()
	}
	return &ledger.Busy{Reason: reason + "; submit the same again, it has one place only", After: silence}
}

// push hands a transaction to the mempool.
func (e *Engine) push(tx []byte) error {
	var answer *abci.ResponseCheckTx
	err := e.node.Mempool().CheckTx(cmttypes.Tx(tx), func(r *abci.ResponseCheckTx) { answer = r }, mempool.TxInfo{})
	switch {
	case errors.Is(err, mempool.ErrTxInCache): // somebody submits the same just now
		return nil
	case err != nil:
		return &ledger.Busy{Reason: "the ledger has more to order than it can keep: " + err.Error(), After: time.Second}
	case answer != nil && answer.Code != 0:
		return &ledger.Refused{Reason: answer.Log, Index: -1}
	}
	select {
	case e.came <- struct{}{}:
	default:
	}
	return nil
}

// durable waits until the entry of a receipt is on the disk, under a
// checkpoint. A receipt without a size becomes the one that the entry had.
func (e *Engine) durable(ctx context.Context, late <-chan time.Time, r ledger.Receipt) (ledger.Receipt, error) {
	for {
		e.app.mu.RLock()
		news, done := e.app.news, e.app.durable > r.Index
		size := e.app.durable
		e.app.mu.RUnlock()
		switch {
		case done && r.Size == 0:
			return receipt(LogDir(e.dir), r.Index, size)
		case done:
			return r, nil
		}
		select {
		case <-news:
		case <-late:
			return ledger.Receipt{}, e.late("cosigned")
		case <-ctx.Done():
			return ledger.Receipt{}, ctx.Err()
		case <-e.failed:
			return ledger.Receipt{}, e.Health()
		case <-e.stop:
			return ledger.Receipt{}, errors.New("the ledger is stopping; submit again")
		}
	}
}
