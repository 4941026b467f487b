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

// TestWaitingHears: validators that wait for the next entry, without an end here,
// hear the others meanwhile. Each of them publishes what was ordered, and an entry
// that comes to one of them ends the wait of whoever has to propose it.
func TestWaitingHears(t *testing.T) {
	g := newGroup(t, 4)
	var engines []*Engine
	for _, dir := range g.dirs {
		engines = append(engines, open(t, dir, Options{wait: time.Hour}))
	}
	rotation := g.rotation(engines[0].State(), 0, 1, 2, 3)
	waitFor(t, "the rotation", func() bool {
		_, err := engines[0].Submit(t.Context(), rotation)
		return err == nil
	})
	for i := range 4 {
		must(t, engines[i], g.log.Register(fmt.Sprintf("d%d", i), 1, nil))
		for j, e := range engines {
			waitFor(t, fmt.Sprintf("validator %d to publish entry %d", j+1, i), func() bool {
				e.app.mu.RLock()
				defer e.app.mu.RUnlock()
				return e.app.durable == e.app.state.Size() && e.app.state.DeploymentByName(fmt.Sprintf("d%d", i)) != nil
			})
		}
	}
}

// TestPrepareProposal: the time comes first, and no block is longer than it may be.
func TestPrepareProposal(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	a := &app{state: ledger.NewState(), now: func() time.Time { return now }}
	for _, c := range []struct {
		txs   []string
		limit int
		want  []string
	}{
		{nil, 1000, []string{string(timeTx(now.UnixMilli()))}},
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
}
