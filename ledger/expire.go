// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"container/heap"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/zos-node/zos/ledger/tiles"
)

// Leases and a ledger that stands still.
//
// Time is what blocks say, and there are blocks only when there is something
// to say. While a lease runs, the engine therefore makes a block at least
// every quarter of a lease (DueMs), with no entry if need be: such a block
// lets leases run out on an idle ledger, and it is the proof that the ledger
// was there. If more than half a lease passes between two blocks although
// leases ran, the ledger stood still; nodes could not renew, so nothing
// expires and every lease gets the grace.

// DueMs is the ledger time at which a block is due although nobody says
// anything, or -1 when none is.
func (s *State) DueMs() int64 {
	if len(s.active) == 0 {
		return -1
	}
	return min(s.timeMs+max(s.Root().Lease.LeaseMs/4, 1), s.leases[0].expiresMs)
}

// silentAfter is how old the newest signatures of a log may be, by a reader's clock,
// before it counts as one that stands still. Engines sign an idle log's checkpoint
// anew each minute, so where several publish it is at most two minutes old.
const silentAfter = 5 * time.Minute

// Frozen says whether the log that was synced stands still: State.Frozen, or
// nothing newer was signed for too long (ErrFrozen). For a reader whose clock is
// right; whoever reads an old copy on purpose is told that it is one.
func (c *Client) Frozen(now time.Time) error {
	c.mu.Lock()
	state, cp := c.view.state, c.view.checkpoint
	c.mu.Unlock()
	if err := state.Frozen(now); err != nil {
		return err
	}
	if cp.N == 0 {
		return nil // nothing was synced
	}
	return Signed(cp, silentAfter, now)
}

// Signed says whether enough validators signed a checkpoint within an age; if not,
// the error is an ErrFrozen.
func Signed(cp tiles.Checkpoint, within time.Duration, now time.Time) error {
	at := time.Unix(cp.FreshSec, 0)
	age := now.Sub(at)
	if age <= within {
		return nil
	}
	return fmt.Errorf("%w: enough validators signed it last at %s, %s ago by this clock, and they do so each minute; it was halted, this is an old copy, or this clock is wrong: ask another ledger or mirror",
		ErrFrozen, at.UTC().Format(time.RFC3339), age.Round(time.Second))
}

// Within refuses, with an ErrFrozen, a log that was synced and whose newest
// signatures are older than an age, or on which a block is overdue.
func (c *Client) Within(age time.Duration, now time.Time) error {
	c.mu.Lock()
	state, cp := c.view.state, c.view.checkpoint
	c.mu.Unlock()
	return errors.Join(state.Frozen(now), Signed(cp, age, now))
}

// frozenAfter is how long a block may be overdue by a reader's clock before the
// log counts as one that stands still: engines make it within seconds, also
// where the validator whose turn it is does not.
const frozenAfter = 2 * time.Minute

// Frozen says, of a log whose clock and the reader's agree, whether it stands
// still: leases run on it, so it promised a block that has not come. It was
// halted, or somebody serves an old copy of it, which is right in every byte. A log
// on which no lease runs promises no blocks; Client.Frozen sees how old its
// signatures are.
func (s *State) Frozen(now time.Time) error {
	due := s.DueMs()
	if due < 0 {
		return nil
	}
	at := time.UnixMilli(due)
	if late := now.Sub(at); late > frozenAfter {
		return fmt.Errorf("%w: leases run on it, and a block was due at %s, %s ago by this clock; it was halted, this is an old copy, or this clock is wrong: ask another ledger or mirror",
			ErrFrozen, at.UTC().Format(time.RFC3339), late.Round(time.Second))
	}
	return nil
}

// lease is when a claim's lease runs out, or did before it was renewed.
type lease struct{ expiresMs, claim int64 }

// leases is a heap, the first to run out on top. Renewed leases stay in it
// until they come to the top.
type leases []lease

func (l leases) Len() int           { return len(l) }
func (l leases) Less(i, j int) bool { return l[i].expiresMs < l[j].expiresMs }
func (l leases) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *leases) Push(x any)        { *l = append(*l, x.(lease)) }
func (l *leases) Pop() any {
	old := *l
	x := old[len(old)-1]
	*l = old[:len(old)-1]
	return x
}

// expires notes when a lease runs out.
func (s *State) expires(g *Grant) { heap.Push(&s.leases, lease{g.ExpiresMs, g.Index}) }

// trim brings a lease that runs, and as it is, to the top.
func (s *State) trim() {
	for len(s.leases) > 0 {
		top := s.leases[0]
		if s.active[top.claim] && s.claims.get(top.claim).ExpiresMs == top.expiresMs {
			return
		}
		heap.Pop(&s.leases)
	}
}

// touched are the claims, in their order, whose leases a block changes: all
// after a standstill, and else those that have run out.
func (s *State) touched(now int64, still bool) []int64 {
	if still {
		return slices.Sorted(maps.Keys(s.active))
	}
	var out []int64
	for s.trim(); len(s.leases) > 0 && s.leases[0].expiresMs <= now; s.trim() {
		out = append(out, heap.Pop(&s.leases).(lease).claim)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// expire brings the leases to the time of a new block and says whether that
// alone is worth a block.
func (s *State) expire(now int64) bool {
	due := s.DueMs()
	if due < 0 || now < due {
		return false
	}
	lease := s.Root().Lease
	still := now-s.timeMs > lease.LeaseMs/2
	for _, claim := range s.touched(now, still) {
		g := *s.claims.get(claim)
		switch {
		case still:
			g.ExpiresMs = max(g.ExpiresMs, now+lease.GraceMs)
			s.claims.put(claim, g)
			s.expires(&g)
		case g.ExpiresMs <= now:
			index := s.nodeByID[g.Node]
			node := *s.nodes.get(index)
			node.Used = node.Used.minus(claim, needs(s.deployments.get(g.Deployment).Spec))
			node.Lost = true
			s.nodes.put(index, node)
			s.reopen(g, GrantExpired, now)
		}
	}
	return true
}
