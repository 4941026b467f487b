// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"errors"
	"fmt"

	"github.com/zos-node/zos/agent/guestlink"
	"github.com/zos-node/zos/agent/phase"
)

// Resume is the life of a deployment that an earlier agent left.
func Resume(w *World, s *State) *Life { return newLife(w, *s) }

// Adoptable says whether the deployment runs; else it is half of one.
func (s *State) Adoptable() bool { return s.Running && s.Ending == nil && s.Plan != nil }

// RunAgain goes on with the life: a running deployment is adopted without a
// second start of anything, a half one is undone. It returns as Run does.
func (l *Life) RunAgain(ctx context.Context) error {
	run, cancel := l.context(ctx)
	defer cancel()
	var err error
	if l.st.Adoptable() {
		err = l.adopt(run)
	} else {
		err = l.undoHalf(run)
	}
	l.closeLinks()
	return err
}

// undoHalf takes away what an agent that died had begun. Nothing is wrong with
// the deployment itself, so the claim is given back and it is tried again.
func (l *Life) undoHalf(ctx context.Context) error {
	begun := l.st.Phase
	e := l.st.Ending
	if e == nil {
		e = &Ending{Result: resultFailed, Reason: fmt.Sprintf("the agent ended during phase %s", begun), Release: true}
		l.log.Warn("half a deployment is left, it is undone", "phase", begun)
		now := l.world.Clock.Now()
		if err := l.sink(phase.Report{Phase: begun, Result: phase.Failed, Started: now, Err: errors.New(e.Reason)}); err != nil {
			return err
		}
	}
	steps := l.steps()[:phase.Index(begun)+1]
	if errs := l.runner.Undo(ctx, steps); len(errs) > 0 {
		e.Reason = fmt.Sprintf("%s; and then: %v", e.Reason, errors.Join(errs...))
	}
	return l.finish(e)
}

// adopt takes up the machines of a running deployment. One that has died
// meanwhile is a failure like any other, only noticed late.
func (l *Life) adopt(run context.Context) error {
	p := l.planned()
	for _, m := range p.Machines {
		l.pin(m.VM.Kernel, m.VM.Initramfs, m.VM.Disks[0].Path)
	}
	if err := l.world.Network.Adopt(l.st.Deployment, &p.Network); err != nil {
		return l.takeDown(run, &Ending{Result: resultFailed, Reason: "adopt: " + err.Error()})
	}
	for i := range p.Machines {
		m := l.machine(&p.Machines[i])
		if err := l.adoptMachine(run, m); err != nil {
			f := &failure{kind: IncidentDied, machine: m, detail: err.Error()}
			ierr := l.world.Records.Incident(l.claimed(), f.kind, m.plan.Name, f.detail)
			return l.takeDown(run, &Ending{Result: resultFailed, Reason: errors.Join(f, ierr).Error()})
		}
	}
	l.log.Info("deployment adopted", "claim", l.claimed(), "machines", len(p.Machines))
	if l.world.Records.LastPhase(l.claimed()) != string(phase.Running) {
		l.servesAgain() // the agent died before this was recorded
	}
	go l.watch(run)
	return l.live(run)
}

func (l *Life) adoptMachine(ctx context.Context, m *machine) error {
	id, ok := l.st.Guests[m.plan.Name]
	if !ok {
		return errors.New("it was being restarted when the agent ended")
	}
	m.gen++
	m.id = &guestlink.Identity{PublicKey: id.PublicKey, BootID: id.BootID, Kernel: id.Kernel}
	v, err := l.world.Driver.Adopt(ctx, m.plan.VM)
	if err != nil {
		return fmt.Errorf("adopt VM: %w", err)
	}
	m.vm = v
	// It served when the agent ended. The guest sends its report and health
	// again, and both are looked at again.
	m.verified, m.told, m.started, m.healthy = true, true, true, true
	if err := l.listen(m, m.id, true); err != nil {
		return err
	}
	l.pump(m)
	m.log.Info("adopted", "pid", v.PID())
	return nil
}
