// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zos-node/zos/agent/deploy"
	"github.com/zos-node/zos/ledger"
)

// busy says whether a life of the deployment is there, and what slot a new one
// could have.
func (f *Follower) busy(deployment int64) (busy bool, slot int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	used := []int{}
	for _, l := range f.lives {
		used = append(used, l.Slot())
	}
	for slices.Contains(used, slot) {
		slot++
	}
	_, busy = f.lives[deployment]
	return busy || f.down, slot
}

// mine looks at the claims that the ledger says are this node's: one without a
// life here, of which nothing was said, was granted to an agent that died before
// it could note it. What was said of any other may wait in the queue still.
func (f *Follower) mine(s *ledger.State, now time.Time) {
	for _, g := range s.ClaimsOf(f.cfg.World.Node) {
		busy, slot := f.busy(g.Deployment)
		if busy || f.cfg.World.Records.Closed(g.Index) {
			continue
		}
		d := s.Deployment(g.Deployment)
		verdict := deploy.Verdict(s, g.Deployment, g.Index)
		if verdict == nil && g.Records == 0 && f.cfg.World.Records.LastPhase(g.Index) == "" {
			f.cfg.Log.Info("taking up a claim that was granted to an earlier agent", "deployment", d.Name, "claim", g.Index)
			l := deploy.New(f.cfg.World, d, g.Index, slot)
			f.live(l, l.Run)
			continue
		}
		// Nothing of it is on the node any more: its story is closed.
		if now.Before(f.closeAt[g.Index]) {
			continue
		}
		f.closeAt[g.Index] = now.Add(askAgain)
		if err := f.abandon(g, verdict); err != nil {
			f.problemOnce("claim cannot be closed", err)
		}
	}
}

func (f *Follower) abandon(g *ledger.Grant, e *deploy.Ending) error {
	q := f.cfg.World.Records
	if err := q.Resume(g.Index, g.Records, g.LastRecord); err != nil {
		return err
	}
	why := "the node has nothing left of the deployment"
	if e != nil {
		why += ": " + e.Reason
	}
	if g.Incidents == 0 { // else it was said before, or what happened was
		if err := q.Incident(g.Index, deploy.IncidentLost, "", why); err != nil {
			return err
		}
	}
	if e == nil {
		e = &deploy.Ending{Result: "failed", Reason: "the node lost what it knew of the deployment", Release: true}
		if err := q.Release(g.Index, e.Reason); err != nil {
			return err
		}
	}
	f.cfg.Log.Warn("closing a claim that nothing is left of", "claim", g.Index, "reason", e.Reason)
	return q.Close(g.Index, e.Result, e.Reason)
}

// claim starts the lives of deployments that are open, fit, and whose turn is
// this node's.
func (f *Follower) claim(s *ledger.State, now time.Time) {
	if f.cfg.Barred != nil {
		if why := f.cfg.Barred(s); why != "" {
			f.problemOnce("the node takes no work", errors.New(why))
			return
		}
	}
	for _, d := range s.Deployments() {
		if s.Open(d) == 0 {
			f.settled(d.ID)
			continue
		}
		busy, slot := f.busy(d.ID)
		if busy {
			continue
		}
		from, reasons := s.MayClaim(d, f.cfg.World.Node)
		if len(reasons) > 0 {
			f.sayOnce(d, fmt.Sprint(reasons))
			continue
		}
		if wait := from - f.cfg.Ledger.NowMs(now); wait > 0 {
			f.sayOnce(d, "other nodes rank before this one")
			continue
		}
		f.mu.Lock()
		later := now.Before(f.tryAt[d.ID])
		f.mu.Unlock()
		if later || f.again(d, s) {
			continue
		}
		delete(f.said, d.ID)
		l := deploy.New(f.cfg.World, d, -1, slot)
		f.live(l, l.Run)
	}
}

// settled drops what was kept for claiming a deployment that is not open.
func (f *Follower) settled(deployment int64) {
	delete(f.said, deployment)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.tryAt, deployment)
	delete(f.tries, deployment)
}

// givenUp is how often in a row a node gave a deployment up. One that it kept for
// longer than the longest pause had not failed there: a node that gives it back for
// each update of its own does not come to wait longer with every update.
func givenUp(s *ledger.State, d *ledger.Deployment, node string) (times int) {
	for _, g := range s.Claims(d.ID) {
		switch {
		case g.Node != node || g.State != ledger.GrantReleased && g.State != ledger.GrantExpired:
		case g.EndedMs-g.GrantedMs > retryMax.Milliseconds():
			times = 1
		default:
			times++
		}
	}
	return times
}

// again says that the node gave this deployment up before, and that it is too
// early to try once more.
func (f *Follower) again(d *ledger.Deployment, s *ledger.State) bool {
	times := givenUp(s, d, f.cfg.World.Node)
	if times == 0 {
		return false
	}
	wait := min(retryFirst<<min(times-1, 10), retryMax)
	if since := f.cfg.Ledger.NowMs(f.cfg.Clock.Now()) - d.SinceMs; since < wait.Milliseconds() {
		f.sayOnce(d, fmt.Sprintf("it was given up here %d times, the next try comes after %s", times, wait))
		return true
	}
	return false
}

func (f *Follower) sayOnce(d *ledger.Deployment, why string) {
	if f.said[d.ID] == why {
		return
	}
	f.said[d.ID] = why
	f.cfg.Log.Info("deployment not claimed", "deployment", d.Name, "entry", d.ID, "err", why)
}
