// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"fmt"
	"time"

	"github.com/zos-node/zos/ledger"
)

// watch holds the lease and looks at the ledger for as long as the deployment
// lives here; it calls end when the ledger says so, or when the lease cannot be
// held and the spec wants at most one.
func (l *Life) watch(ctx context.Context, end func(*Ending)) {
	w := l.world
	l.mu.Lock()
	lease, until, claim, deployment, onPartition := l.st.Lease, l.st.LeaseUntil, l.st.Claim, l.st.Deployment, l.st.OnPartition
	l.mu.Unlock()
	margin := min(lease/marginPart, maxMargin)
	renewAt := until.Add(-lease).Add(lease / renewPart)
	var sent time.Time     // of the oldest renewal that is not seen on the ledger yet
	var expires int64 = -1 // of the claim, in the newest verified state
	last := ""             // what was said about not renewing
	broken := w.Records.Broken(claim)
	for {
		changed := w.Ledger.Changed()
		s := w.Ledger.State()
		if e := Verdict(s, deployment, claim); e != nil {
			end(e)
			return
		}
		now := w.Clock.Now()
		if g := s.Claim(claim); g != nil && g.ExpiresMs != expires {
			// A receipt is a server's word. Only the verified state prolongs a
			// lease, and only from when the renewal was sent.
			if expires >= 0 && !sent.IsZero() {
				until, renewAt, sent, last = sent.Add(lease), sent.Add(lease/renewPart), time.Time{}, ""
				if err := l.update(func(st *State) { st.LeaseUntil = until }); err != nil {
					end(&Ending{Result: resultFailed, Reason: "the lease cannot be noted: " + err.Error(), Release: true})
					return
				}
			}
			expires = g.ExpiresMs
		}
		stopAt := until.Add(-margin)
		if onPartition == "stop" && !now.Before(stopAt) {
			l.log.Error("the lease could not be renewed in time, and the spec wants at most one", "until", until)
			if err := w.Records.Incident(claim, IncidentLease, "", "the lease could not be renewed; stopped before it ran out"); err != nil {
				l.log.Error("incident", "err", err)
			}
			end(&Ending{Result: resultFailed, Reason: "the lease could not be renewed, and onPartition is stop", Release: true, Kill: true})
			return
		}
		if !now.Before(renewAt) {
			renewAt = now.Add(renewRetry)
			// Also one that seems to fail may be on the ledger, and the one
			// that is seen next may be the first of several.
			if sent.IsZero() {
				sent = now
			}
			err := l.renew(ctx, claim, s.Acted())
			if err == nil {
				renewAt = now.Add(max(lease/renewPart/renewPart, renewRetry))
			} else if text := err.Error(); text != last {
				l.log.Warn("lease not renewed", "until", until, "onPartition", onPartition, "err", err)
				last = text
			}
		}
		next := renewAt
		if onPartition == "stop" && stopAt.Before(next) {
			next = stopAt
		}
		select {
		case <-ctx.Done():
			return
		case <-broken:
			end(refusedEnding(w.Records.Refusal(claim)))
			return
		case <-changed:
		case <-w.Clock.After(max(next.Sub(w.Clock.Now()), 0)):
		}
	}
}

// refusedEnding is for a deployment whose story has a hole. What it runs may be
// right, but nobody can see that; the next try, here or elsewhere, tells its own
// story from the beginning.
func refusedEnding(why error) *Ending {
	return &Ending{Result: resultFailed, Reason: why.Error(), Release: true}
}

// renew prolongs the lease, by the state in which the deployment was seen to go
// on: a renewal by one in which it had ended would be defiance.
func (l *Life) renew(ctx context.Context, claim int64, seen ledger.Acted) error {
	raw, err := ledger.NewEntry(ledger.TypeRenew, ledger.Renew{Claim: claim, Acted: seen}, l.world.Signer)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, submitTimeout)
	defer cancel()
	_, err = l.world.Ledger.Submit(ctx, raw)
	return err
}

// Verdict is what the ledger has decided about a claim: nil while it may run.
func Verdict(s *ledger.State, deployment, claim int64) *Ending {
	d, g := s.Deployment(deployment), s.Claim(claim)
	if d == nil || g == nil {
		return nil // this agent has not caught up yet
	}
	switch {
	case d.Stopped >= 0:
		return &Ending{Result: resultStopped, Reason: fmt.Sprintf("stopped by entry %d: %s", d.Stopped, d.StopReason)}
	case d.Replaced >= 0:
		return &Ending{Result: resultReplaced, Reason: fmt.Sprintf("replaced by entry %d", d.Replaced)}
	case g.State != ledger.GrantActive:
		return &Ending{Result: resultFailed, Reason: "the lease is " + g.State}
	}
	return nil
}
