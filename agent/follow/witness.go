// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"time"

	"github.com/zos-node/zos/ledger"
)

// witness bounds the time from above. What a block says of its time is as old
// as the block, and who serves a ledger may serve an old one. An entry that this
// node made and sent itself cannot be in a block from before: once one is there,
// the time is at most that of the newest block and what has passed since the
// entry was sent.
type witness struct {
	entry *ledger.Entry // sent, not seen yet
	sent  time.Time
	block time.Time // of the last entry that was seen; zero for none
	since time.Time // when that was sent
}

// patience is how long an entry is looked for before another one is.
const patience = 5 * time.Minute

// asks notes an entry that is about to be sent. One at a time will do.
func (w *witness) asks(s *ledger.State, entry []byte, now time.Time) {
	if w.entry != nil && now.Sub(w.sent) < patience {
		return
	}
	e, err := ledger.Decode(entry)
	if err != nil {
		return // it will be refused
	}
	if _, known := s.Indexed(e); known {
		return // sent before, maybe by an earlier agent
	}
	w.entry, w.sent = e, now
}

// looks notes the block in which the entry has arrived, or a newer one.
func (w *witness) looks(s *ledger.State) {
	if w.entry == nil {
		return
	}
	if _, there := s.Indexed(w.entry); !there {
		return
	}
	w.block, w.since, w.entry = time.UnixMilli(s.TimeMs()), w.sent, nil
}

// latest is what the time can be at most at a moment of this machine's clock,
// which only counts how much has passed.
func (w *witness) latest(now time.Time) (time.Time, bool) {
	return w.block.Add(now.Sub(w.since)), !w.block.IsZero()
}

// Latest is what the time can be at most, as validators see it; false while no
// entry of this boot stands on the ledger.
func (l *Ledger) Latest(now time.Time) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.witness.latest(now)
}
