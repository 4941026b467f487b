// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/zos-node/zos/agent/wait"
	"github.com/zos-node/zos/ledger"
)

// trouble remembers what ledgers did wrong, so that the console hears of each
// change once, and a good ledger of each lie (once).
type trouble struct {
	last    map[string]string // ledger: the error said last
	line    *wait.Line        // while none can be used
	pending []lie
	once    once // of lies, by ledger and kind
}

// lie is what will be reported as an incident.
type lie struct{ kind, ledger, detail string }

// Kinds of incidents about ledgers.
const (
	checkpointForged   = "checkpoint-forged"
	checkpointRollback = "checkpoint-rollback"
	checkpointFork     = "checkpoint-fork"
)

// kind is the incident that an error is, "" for one that is none.
func kind(err error) string {
	switch {
	case errors.Is(err, ledger.ErrRollback):
		return checkpointRollback
	case errors.Is(err, ledger.ErrFork):
		return checkpointFork
	case errors.Is(err, ledger.ErrForged):
		return checkpointForged
	}
	return ""
}

// word is the short name of what is wrong, for the console.
func word(err error) string {
	if errors.Is(err, ledger.ErrState) {
		return "not-kept" // the ledger is well, this node's storage is not
	}
	return strings.TrimPrefix(cmp.Or(kind(err), "checkpoint-unreachable"), "checkpoint-")
}

// show takes in how one Sync went. failed is its error when no ledger served.
func (t *trouble) show(log *slog.Logger, now time.Time, refused []Refusal, failed error) {
	bad := map[string]bool{}
	for _, r := range refused {
		bad[r.Ledger] = true
		if text := r.Err.Error(); t.last[r.Ledger] != text {
			t.last[r.Ledger] = text
			log.Warn("ledger refused", "kind", word(r.Err), "ledger", r.Ledger, "err", r.Err)
		}
		if k := kind(r.Err); k != "" {
			t.note(k, r, now)
		}
	}
	if failed != nil {
		if t.line == nil {
			t.line = wait.Start(log, now, "a good ledger", "none of the configured ones can be used, what runs goes on")
			if len(refused) == 0 {
				log.Warn("ledger refused", "kind", word(failed), "err", failed)
			}
		}
		t.line.Tick(now)
		return
	}
	if t.line != nil {
		t.line.Print(now)
		t.line.Done()
		t.line = nil
	}
	// A round that ends early does not ask every ledger, so only when none was
	// refused are the others known to be well.
	if len(bad) == 0 {
		for _, k := range slices.Collect(maps.Keys(t.last)) {
			delete(t.last, k)
		}
	}
}

// note wants a lie reported. While no good ledger takes entries, one of each
// ledger and kind waits, however long that lasts.
func (t *trouble) note(kind string, r Refusal, now time.Time) {
	key := r.Ledger + " " + kind
	if slices.ContainsFunc(t.pending, func(l lie) bool { return l.kind == kind && l.ledger == r.Ledger }) {
		t.once.hold(key)
		return
	}
	if added, ok := t.once.pass(key, now); ok {
		t.pending = append(t.pending, lie{kind, r.Ledger, r.Ledger + ": " + r.Err.Error() + added})
	}
}

// report says on the ledger, now that a good one takes entries, what others
// did, and what mirrors did.
func (f *Follower) report() {
	for len(f.trouble.pending) > 0 {
		l := f.trouble.pending[0]
		if err := f.cfg.World.Records.Incident(-1, l.kind, "", l.detail); err != nil {
			f.problemOnce("incident cannot be recorded", err)
			return
		}
		f.trouble.pending = f.trouble.pending[1:]
	}
}
