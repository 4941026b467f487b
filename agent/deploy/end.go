// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/agent/record"
	"github.com/zos-node/zos/agent/wait"
)

// Results of a close entry.
const (
	resultFailed   = "failed"
	resultStopped  = "stopped"
	resultReplaced = "replaced"
)

// Bounds of the pause before undoing is tried again.
const (
	undoFirst = 200 * time.Millisecond
	undoLast  = 30 * time.Second
)

// local marks a failure of this node, not of the deployment: the claim is
// given back, and another node, or this one later, tries again.
type local struct{ error }

func (e local) Unwrap() error { return e.error }

func onlyHere(err error) error {
	if err == nil {
		return nil
	}
	return local{err}
}

// takeDown ends a deployment that ran: guests in order, then all undone.
func (l *Life) takeDown(ctx context.Context, e *Ending) error {
	l.log.Info("ending", "result", e.Result, "reason", e.Reason)
	if err := l.update(func(s *State) { s.Ending = e }); err != nil {
		return err
	}
	if !e.Kill {
		l.stopInOrder(context.WithoutCancel(ctx), e)
	}
	return l.undo(ctx, l.steps(), e)
}

// stopInOrder gives the guests the time that the spec gives them. Where the claim
// is given back afterwards, its lease is held meanwhile: nobody else may begin
// while guests end here. What cannot be held, and must not run twice, is cut short.
func (l *Life) stopInOrder(ctx context.Context, e *Ending) {
	ctx, cancel := context.WithCancel(ctx)
	held := make(chan struct{})
	if e.Release {
		go func() {
			defer close(held)
			l.watch(ctx, func(lost *Ending) {
				if lost.Kill {
					cancel()
				}
			})
		}()
	} else {
		close(held)
	}
	l.stopGuests(ctx, e.Reason)
	cancel()
	<-held
}

// undo undoes steps and ends with the close of the claim.
func (l *Life) undo(ctx context.Context, steps []phase.Step, e *Ending) error {
	if errs := l.runner.Undo(ctx, steps); len(errs) > 0 {
		e.Reason = fmt.Sprintf("%s; and then: %v", e.Reason, errors.Join(errs...))
	}
	return l.clear(e)
}

// ending makes the reason for the end from the error of a phase: what End
// said, where that was what broke the phase, else the failure itself.
func (l *Life) ending(err error) *Ending {
	select {
	case <-l.ended:
		var e *Ending
		if errors.As(l.cause(), &e) {
			return e
		}
	default:
	}
	// What was only late, cut short with the agent, without a record, or is in
	// the way on this node alone, may be tried again.
	var here local
	again := errors.Is(err, record.ErrRefused) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.As(err, &here)
	return &Ending{Result: resultFailed, Reason: err.Error(), Release: again}
}

// noting keeps in mind whether a phase is undone.
func (l *Life) noting(n phase.Name, undo func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		err := undo(ctx)
		if err != nil {
			l.left[n] = err
		} else {
			delete(l.left, n)
		}
		return err
	}
}

// clear tries again what could not be undone, until nothing is left, and only
// then closes the claim: as long as a VM or a bridge is there, the state file
// tells of it, and its slot and its networks are taken. When the agent ends
// before that, the next one goes on from the file.
func (l *Life) clear(e *Ending) error {
	if err := l.update(func(s *State) { s.Ending = e }); err != nil {
		return err
	}
	line := wait.Start(l.log, l.world.Clock.Now(), "what is left to be undone", "")
	steps := l.steps()
	slices.Reverse(steps)
	for pause := undoFirst; len(l.left) > 0; pause = min(2*pause, undoLast) {
		line.Detail(l.leftovers())
		select {
		case <-l.over:
			l.log.Warn("the agent ends before all is undone", "left", l.leftovers())
			return nil
		case now := <-l.world.Clock.After(pause):
			line.Tick(now)
		}
		for _, s := range steps {
			if _, left := l.left[s.Phase]; !left {
				continue
			}
			started := l.world.Clock.Now()
			ctx, cancel := context.WithTimeout(context.Background(), undoTimeout)
			err := s.Undo(ctx)
			cancel()
			if err != nil {
				continue // said by the line
			}
			if err := l.sink(phase.Report{Phase: s.Phase, Result: phase.Undone, Started: started, Took: l.world.Clock.Now().Sub(started)}); err != nil {
				return err
			}
		}
	}
	return l.finish(e)
}

// leftovers says what is left and why.
func (l *Life) leftovers() string {
	var all []string
	for _, n := range slices.Sorted(maps.Keys(l.left)) {
		all = append(all, fmt.Sprintf("%s: %v", n, l.left[n]))
	}
	return strings.Join(all, "; ")
}

// finish closes the claim. Behind it nothing of the deployment is left.
func (l *Life) finish(e *Ending) error {
	claim := l.claimed()
	if err := l.world.Content.Unpin(l.st.Deployment); err != nil {
		return err
	}
	if !l.world.Records.Closed(claim) {
		if e.Release {
			if err := l.world.Records.Release(claim, e.Reason); err != nil {
				return err
			}
		}
		if err := l.world.Records.Close(claim, e.Result, e.Reason); err != nil {
			return err
		}
	}
	l.log.Info("closed", "claim", claim, "result", e.Result, "reason", e.Reason)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.st.remove(l.world.RunDir)
}
