// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"testing"
	"time"

	"github.com/zos-node/zos/ledger/ledgertest"
)

// TestWitness: only an entry that this node sent, and that was not there
// before, says that a block is from now.
func TestWitness(t *testing.T) {
	log := ledgertest.New(t)
	first, second := log.Register("first", 1, nil), log.Register("second", 1, nil)
	// A machine that believes to be in another year: only what passes counts.
	now := time.Date(2063, 1, 1, 0, 0, 0, 0, time.UTC)
	var w witness
	none := func(what string) {
		t.Helper()
		if at, ok := w.latest(now); ok {
			t.Errorf("%s: a bound at %v", what, at)
		}
	}
	w.looks(log.State())
	none("nothing was sent")

	log.Must(first)
	w.asks(log.State(), first, now)
	w.looks(log.State())
	none("an entry that was there already, as one of a ledger that is played back")

	w.asks(log.State(), second, now)
	log.Must(log.Register("third", 1, nil))
	w.looks(log.State())
	none("a block of others")

	now = now.Add(2 * time.Second)
	log.Pass(3000)
	log.Must(second)
	w.looks(log.State())
	block := time.UnixMilli(log.State().TimeMs())
	if got, ok := w.latest(now.Add(time.Minute)); !ok || !got.Equal(block.Add(time.Minute+2*time.Second)) {
		t.Errorf("%v, %v: want the block's time %v and what has passed since the entry was sent", got, ok, block)
	}

	w.asks(log.State(), []byte("no entry"), now)
	lost := log.Register("lost", 1, nil)
	w.asks(log.State(), lost, now)
	next := log.Register("next", 1, nil)
	w.asks(log.State(), next, now.Add(patience+time.Second))
	log.Pass(60_000)
	log.Must(next)
	w.looks(log.State())
	if got, _ := w.latest(now.Add(patience + time.Second)); !got.Equal(time.UnixMilli(log.State().TimeMs())) {
		t.Errorf("an entry that never arrives holds up all others: %v", got)
	}
}
