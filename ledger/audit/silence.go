// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"slices"
	"strings"
	"time"

	"github.com/zos-node/zos/ledger"
)

// What is not on the log can only be missed by whoever knows what should be
// there. A node that holds a claim owes it:
//
//   - the record of each phase, in order, up to the one that failed or to
//     "running", or an incident that says why there is none;
//   - the next of them within the phase's limit (ledger.PhaseLimit) and a lease,
//     for as long as it renews: who can renew can also tell;
//   - no renewal once it knows that the deployment was stopped or replaced, and
//     none after a lease has passed since;
//   - an end (a close, or giving it back), also after its lease ran out.
//
// All of it follows from what is on the log. Time is the ledger's, without that
// in which it stood still: a lease that is alive after more than its length
// without a renewal was given a grace, so that such a pause does not count.

// tale is what a node told of a claim.
type tale struct {
	told     []string // phases that went well or failed
	failed   bool
	running  bool
	incident bool
	closed   bool
	quiet    time.Duration // from the last record to the last renewal
	defiant  int64         // first renewal after the end of the deployment, or -1
}

// over is since when a deployment should not run any more: the index and the
// ledger time of what ended it, -1 while nothing has.
func (r *Report) over(s *ledger.State, d *ledger.Deployment) (index, ms int64) {
	index, ms = -1, -1
	if next := s.Deployment(d.Replaced); d.Replaced >= 0 && next != nil {
		index, ms = d.Replaced, next.RegisteredMs
	}
	for _, it := range r.Story.Items {
		if it.Index == d.Stopped && (it.Kind == "stop" || it.Kind == "revoke") {
			index, ms = it.Index, it.TimeMs
		}
	}
	return index, ms
}

func (r *Report) tale(claim, over, overMs int64, lease time.Duration) tale {
	t := tale{defiant: -1}
	var last int64
	var quiet, since time.Duration // since the last record, since it is over
	for _, it := range r.Story.Items {
		if it.Claim != claim {
			continue
		}
		if last == 0 {
			last = it.TimeMs
		}
		if over >= 0 && it.Index > over {
			last = max(last, overMs)
		}
		if step := time.Duration(it.TimeMs-last) * time.Millisecond; step <= lease {
			quiet += step
			if over >= 0 && it.Index > over {
				since += step
			}
		}
		last = it.TimeMs
		switch p := it.entry.Payload.(type) {
		case *ledger.Record:
			if p.Result == "undone" {
				continue
			}
			t.told = append(t.told, p.Phase)
			t.failed = t.failed || p.Result == "failed"
			t.running = t.running || p.Phase == ledger.PhaseRunning && p.Result == "ok"
			quiet, t.quiet = 0, 0
		case *ledger.Renew:
			t.quiet = quiet
			if over >= 0 && t.defiant < 0 && (p.Acted.Size > over || since > lease) {
				t.defiant = it.Index
			}
		case *ledger.Incident:
			t.incident = true
		case *ledger.Close:
			t.closed = true
		}
	}
	return t
}

// longestLease is the longest that any root of trust of the log gave.
func longestLease(s *ledger.State) time.Duration {
	var ms int64
	for v := int64(1); s.RootAt(v) != nil; v++ {
		ms = max(ms, s.RootAt(v).Lease.LeaseMs)
	}
	return time.Duration(ms) * time.Millisecond
}

// silence looks for what a node should have said of a claim and did not. It
// fills in sum.Missing.
func (r *Report) silence(s *ledger.State, d *ledger.Deployment, g *ledger.Grant, sum *ClaimSum) {
	lease := longestLease(s)
	over, overMs := r.over(s, d)
	t := r.tale(g.Index, over, overMs, lease)
	all := ledger.Phases()
	last := -1 // the phase that was told of and is latest in the order
	for i, p := range all {
		if slices.Contains(t.told, p) {
			last = i
		}
	}
	next := all[min(last+1, len(all)-1)]
	limit := ledger.PhaseLimit(next, d.Spec) + lease
	told := t.running || t.failed
	late := !told && t.quiet > limit
	end := max(last, 0)
	if !told && (late || t.closed || g.State != ledger.GrantActive) {
		end = len(all) - 1
	}
	sum.Missing = []string{}
	var gaps []string // missing before one that is there
	for i, p := range all[:end+1] {
		if slices.Contains(t.told, p) {
			continue
		}
		sum.Missing = append(sum.Missing, p)
		if i < last {
			gaps = append(gaps, p)
		}
	}
	switch {
	case late:
		r.wrong("claim %d: its node renewed it for %s without a word, but phase %s has to be recorded within %s, done or failed; there is no record of %s", g.Index, t.quiet, next, limit, list(sum.Missing))
	case t.running || t.incident: // record names what should have been before it ran
	case t.closed && !t.failed && g.CloseResult != "failed" && g.State != ledger.GrantReleased: // claim says so of "failed"
		r.wrong("claim %d: was closed as %s, but no record says that it ran or which phase failed, and no incident why; there is no record of %s", g.Index, g.CloseResult, list(sum.Missing))
	case gaps != nil:
		r.wrong("claim %d: phase %s is recorded, but before it there is no record of %s", g.Index, all[last], list(gaps))
	}
	// A node whose key was revoked can say nothing any more.
	if g.State == ledger.GrantExpired && !t.closed && s.Revoked(g.Node) == nil {
		r.wrong("claim %d: its lease ran out, and its node never said how it ended (want a close)", g.Index)
	}
	if t.defiant >= 0 {
		r.wrong("entry %d: renews claim %d, but entry %d had ended the deployment; want it taken down and a close", t.defiant, g.Index, over)
	}
}

func list(phases []string) string { return strings.Join(phases, ", ") }
