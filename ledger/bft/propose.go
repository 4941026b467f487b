// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"context"
	"errors"

	abci "github.com/cometbft/cometbft/abci/types"
	cmttypes "github.com/cometbft/cometbft/types"
)

// PrepareProposal puts this validator's clock in front of the entries.
func (a *app) PrepareProposal(_ context.Context, r *abci.RequestPrepareProposal) (*abci.ResponsePrepareProposal, error) {
	txs := cmttypes.Txs{timeTx(max(a.now().UnixMilli(), a.ledgerTime()))}
	size := cmttypes.ComputeProtoSizeForTxs(txs)
	for _, tx := range r.Txs {
		size += cmttypes.ComputeProtoSizeForTxs(cmttypes.Txs{tx})
		if size > r.MaxTxBytes {
			break
		}
		txs = append(txs, tx)
	}
	return &abci.ResponsePrepareProposal{Txs: txs.ToSliceOfBytes()}, nil
}

// ProcessProposal votes for a block whose time is honest and whose
// transactions are entries.
func (a *app) ProcessProposal(_ context.Context, r *abci.RequestProcessProposal) (*abci.ResponseProcessProposal, error) {
	if err := a.acceptable(r.Height, r.Txs); err != nil {
		return &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_REJECT}, nil
	}
	return &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_ACCEPT}, nil
}

func (a *app) acceptable(height int64, txs [][]byte) error {
	if len(txs) == 0 {
		return errors.New("the block has no time")
	}
	t, err := parseTime(txs[0])
	if err != nil {
		return err
	}
	if err := honest(t, a.ledgerTime(), a.now().UnixMilli(), a.live.Load() && !a.stuck(height)); err != nil {
		return err
	}
	for _, tx := range txs[1:] {
		if err := a.admissible(tx); err != nil {
			return err
		}
	}
	return nil
}

// stuck says whether blocks of a height have been proposed for so long that the
// age of one is held against it no more.
func (a *app) stuck(height int64) bool {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked.height != height {
		a.asked.height, a.asked.first = height, now
	}
	return now.Sub(a.asked.first) > maxBehind
}
