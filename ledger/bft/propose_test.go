// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"fmt"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	cmttypes "github.com/cometbft/cometbft/types"

	"github.com/zos-node/zos/ledger"
)

// TestOneBlockEach: entries that come one after the other make one block each,
// although the app hash of every block has to be signed by another block: that
// one waits for the next entry. An engine that ends does not wait for it.
func TestOneBlockEach(t *testing.T) {
	l, dir := fresh(t, lease)
	e := open(t, dir, Options{wait: time.Hour})
	for i := range 10 {
		if r, err := e.Submit(t.Context(), l.Register(fmt.Sprintf("d%d", i), 1, nil)); err != nil || r.Index != int64(2+2*i) {
			t.Fatalf("entry %d: %+v, %v", i, r, err)
		}
	}
	if h := e.State().Height(); h != 10 {
		t.Errorf("10 entries made %d blocks", h)
	}
	shut(t, e)
	e = open(t, dir, Options{wait: 1}) // as good as not at all
	must(t, e, l.Register("last", 1, nil))
	shut(t, e)
}

// TestPrepareProposal: the time comes first, what came in meanwhile is taken where
// there is nothing else, and no block is longer than it may be.
func TestPrepareProposal(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	asked := 0
	a := &app{state: ledger.NewState(), now: func() time.Time { return now }, more: func(int64) [][]byte {
		asked++
		return [][]byte{[]byte("late")}
	}}
	for _, c := range []struct {
		txs   []string
		limit int
		want  []string
	}{
		{nil, 1000, []string{string(timeTx(now.UnixMilli())), "late"}},
		{[]string{"a", "b"}, 1000, []string{string(timeTx(now.UnixMilli())), "a", "b"}},
		{[]string{"a", "b"}, int(cmttypes.ComputeProtoSizeForTxs(cmttypes.Txs{timeTx(now.UnixMilli()), cmttypes.Tx("a")})), []string{string(timeTx(now.UnixMilli())), "a"}},
	} {
		r := &abci.RequestPrepareProposal{MaxTxBytes: int64(c.limit)}
		for _, tx := range c.txs {
			r.Txs = append(r.Txs, []byte(tx))
		}
		p, err := a.PrepareProposal(t.Context(), r)
		if err != nil || fmt.Sprintf("%s", p.Txs) != fmt.Sprintf("%s", c.want) {
			t.Errorf("%v: %s, want %s: %v", c.txs, p.Txs, c.want, err)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times for what comes in", asked)
	}
}
