// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/agent/plan"
	"github.com/zos-node/zos/agent/wait"
)

// supervise watches over a running deployment until it has to end; it returns
// nil when only the agent ends.
func (l *Life) supervise(ctx context.Context) *Ending {
	for {
		l.release()
		select {
		case <-ctx.Done():
			return told(ctx)
		case x := <-l.msgs:
			if x.again && x.gen == x.m.gen {
				if err := l.restart(ctx, x.m); err != nil {
					if e := told(ctx); e != nil { // that is what broke it
						return e
					}
					return &Ending{Result: resultFailed, Reason: err.Error()}
				}
				continue
			}
			before := x.m.healthy
			f := l.handle(ctx, x)
			if f == nil {
				if !before && x.m.healthy && x.m.gen == x.gen {
					if err := l.servesAgain(); err != nil {
						return &Ending{Result: resultFailed, Reason: err.Error(), Release: true}
					}
				}
				continue
			}
			if e := l.judge(f); e != nil {
				return e
			}
		}
	}
}

// told is the Ending that ended a context, if one did.
func told(ctx context.Context) *Ending {
	var e *Ending
	if errors.As(context.Cause(ctx), &e) {
		return e
	}
	return nil
}

// judge decides what a failure means: the end, or another start of the machine.
func (l *Life) judge(f *failure) *Ending {
	err := l.failed(f)
	m := f.machine
	action := m.plan.Failure
	l.mu.Lock()
	count := l.st.Restarts[m.plan.Name]
	l.mu.Unlock()
	if f.away {
		return &Ending{Result: resultFailed, Reason: err.Error(), Release: true}
	}
	if f.hard || action.Action != "restart" || count >= action.MaxRestarts {
		if !f.hard {
			if ierr := l.world.Records.Incident(l.claimed(), f.kind, m.plan.Name, f.detail); ierr != nil {
				err = errors.Join(err, ierr)
			}
		}
		reason := err.Error()
		if action.Action == "restart" && !f.hard {
			reason = fmt.Sprintf("%s (after %d restarts)", reason, count)
		}
		return &Ending{Result: resultFailed, Reason: reason}
	}
	err = errors.Join(
		l.world.Records.Incident(l.claimed(), IncidentRestart, m.plan.Name, fmt.Sprintf("restart %d of %d: %v", count+1, action.MaxRestarts, f)),
		l.update(func(s *State) {
			if s.Restarts == nil {
				s.Restarts = map[string]int64{}
			}
			s.Restarts[m.plan.Name]++
			s.Owes = true
			delete(s.Guests, m.plan.Name)
		}),
		l.kill(m))
	if err != nil {
		return &Ending{Result: resultFailed, Reason: err.Error()}
	}
	backoff := time.Duration(action.BackoffMs) * time.Millisecond
	m.log.Warn("machine is started again", "restart", count+1, "of", action.MaxRestarts, "after", backoff)
	l.againAfter(m, backoff)
	return nil
}

// againAfter lets a machine be started again when d has passed.
func (l *Life) againAfter(m *machine, d time.Duration) {
	m.quit = make(chan struct{})
	gen, quit, after := m.gen, m.quit, l.world.Clock.After(d)
	go func() {
		select {
		case <-after:
			l.post(msg{m: m, gen: gen, again: true}, quit)
		case <-quit:
		}
	}()
}

// restart starts a machine anew, from content that is verified anew.
func (l *Life) restart(ctx context.Context, m *machine) error {
	if m.quit != nil {
		close(m.quit)
		m.quit = nil
	}
	fctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	man, err := l.world.Content.Manifest(fctx, m.plan.Image)
	if err != nil {
		return fmt.Errorf("restart of machine %s: %w", m.plan.Name, err)
	}
	for _, d := range []string{m.plan.Kernel, m.plan.Initramfs} {
		if _, err := l.world.Content.Blob(fctx, d); err != nil {
			return fmt.Errorf("restart of machine %s: %w", m.plan.Name, err)
		}
	}
	if _, err := l.world.Images.Image(fctx, man, m.plan.Image); err != nil {
		return fmt.Errorf("restart of machine %s: %w", m.plan.Name, err)
	}
	return l.boot(ctx, m)
}

// servesAgain records the deployment as running once more, with the new keys,
// when the last machine that had been restarted is healthy. A deployment whose
// record cannot be written may not go on: nobody could see what it is.
func (l *Life) servesAgain() error {
	l.mu.Lock()
	owes := l.st.Owes
	l.mu.Unlock()
	if !owes {
		return nil
	}
	for _, m := range l.machines {
		if !m.healthy {
			return nil
		}
	}
	var out phase.Out
	now := l.world.Clock.Now()
	err := l.serving(&out)
	if err == nil {
		err = l.sink(phase.Report{Phase: phase.Running, Result: phase.OK, Started: now, Digests: out.Digests, Detail: out.Detail})
	}
	if err == nil {
		err = l.update(func(s *State) { s.Owes = false })
	}
	if err != nil {
		return fmt.Errorf("record that it serves again: %w", err)
	}
	return nil
}

// stopGuests asks the guests to end, the ones that others depend on last, and
// gives each its grace; when ctx is over there is none any more.
func (l *Life) stopGuests(ctx context.Context, reason string) {
	machines := slices.Clone(l.planned().Machines)
	slices.Reverse(machines)
	for i := range machines {
		m := l.machines[machines[i].Name]
		if m == nil || m.off || m.hung || m.link == nil {
			continue
		}
		if ctx.Err() != nil {
			m.log.Warn("no time is left to stop the guest, it is killed")
			continue
		}
		m.log.Info("stopping", "reason", reason)
		if err := m.link.Stop(reason); err != nil {
			m.log.Warn("ask the guest to stop", "err", err)
		}
		now, limit := l.world.Clock.Now(), stopTime(m.plan)
		grace := l.world.Clock.After(limit)
		line := wait.Start(m.log, now, "the guest to stop", fmt.Sprintf("at most %s", limit))
		// Until the VM is off: the guest unmounts before that.
		for waiting := true; waiting && !m.off; {
			select {
			case <-grace:
				m.log.Warn("the guest did not stop in its grace, it is killed")
				waiting = false
			case <-ctx.Done():
				m.log.Warn("the guest may not go on, it is killed")
				waiting = false
			case now := <-l.world.Clock.After(tick):
				line.Tick(now)
			case x := <-l.msgs:
				if f := l.handle(ctx, x); f != nil {
					f.machine.log.Info("ended", "kind", f.kind, "detail", f.detail)
				}
			}
		}
	}
}

// stopTime is how long a guest may take to be off once it was asked to end.
func stopTime(m *plan.Machine) time.Duration {
	return time.Duration(m.Guest.Process.StopGraceMs)*time.Millisecond + stopSlack
}

// StopTime is how long the guests of the deployment may take to end, one after
// the other, by its spec; 0 before it is planned.
func (l *Life) StopTime() (all time.Duration) {
	p := l.planned()
	if p == nil {
		return 0
	}
	for i := range p.Machines {
		all += stopTime(&p.Machines[i])
	}
	return all
}
