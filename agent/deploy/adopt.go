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
func Resume(w *World, s *State) *Life {
	l := newLife(w, *s)
	if s.Plan != nil {
		for _, m := range s.Plan.Machines {
			w.Images.Use(s.Deployment, m.Image)
		}
	}
	return l
}

// Adoptable says whether the deployment runs; else it is half of one.
func (s *State) Adoptable() bool { return s.Running && s.Ending == nil && s.Plan != nil }

// RunAgain goes on with the life: a running deployment is adopted without a
// second start of anything, a half one is undone. It returns as Run does.
func (l *Life) RunAgain(ctx context.Context) error {
	run, cancel := l.context(ctx)
	defer cancel()
	defer l.world.Network.Free(l.st.Deployment)
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
		if l.world.Records.LastPhase(l.claimed()) == "" {
			// What was found before the claim died with the agent.
			if err := l.world.Records.Incident(l.claimed(), IncidentLost, "", e.Reason+"; what it had found before is not recorded"); err != nil {
				return err
			}
		}
		now := l.world.Clock.Now()
		if err := l.sink(phase.Report{Phase: begun, Result: phase.Failed, Started: now, Err: errors.New(e.Reason)}); err != nil {
			return err
		}
	}
	return l.undo(ctx, l.steps()[:phase.Index(begun)+1], e)
}

// adopt takes up the machines of a running deployment. One that has died
// meanwhile is a failure like any other, only noticed late. What they run from
// is pinned still: pins outlive agents.
func (l *Life) adopt(run context.Context) error {
	p := l.planned()
	if err := l.world.Network.Adopt(l.st.Deployment, &p.Network); err != nil {
		return l.takeDown(run, &Ending{Result: resultFailed, Reason: "adopt: " + err.Error(), Release: true})
	}
	var cut []*machine // off the restart that the agent's end cut short
	for i := range p.Machines {
		m := l.machine(&p.Machines[i])
		if _, ok := l.st.Guests[m.plan.Name]; !ok {
			cut = append(cut, m)
			continue
		}
		if f := l.adoptMachine(run, m); f != nil {
			err := l.failed(f)
			if !f.hard {
				err = errors.Join(err, l.world.Records.Incident(l.claimed(), f.kind, m.plan.Name, f.detail))
			}
			return l.takeDown(run, &Ending{Result: resultFailed, Reason: err.Error()})
		}
	}
	if l.world.Records.LastPhase(l.claimed()) != string(phase.Running) || len(cut) > 0 {
		// The agent died before this was recorded.
		if err := l.update(func(s *State) { s.Owes = true }); err != nil {
			return err
		}
	}
	for _, m := range cut {
		m.log.Warn("it was being restarted when the agent ended, it is started again")
		if err := l.clearMachine(run, m); err != nil {
			return l.takeDown(run, &Ending{Result: resultFailed, Reason: "adopt: " + err.Error(), Release: true})
		}
		l.againAfter(m, 0)
	}
	l.log.Info("deployment adopted", "claim", l.claimed(), "machines", len(p.Machines))
	go l.watch(run, l.End)
	return l.live(run)
}

// adoptMachine takes up a VM that runs. It is believed nothing: the hypervisor
// is asked what it runs, and the guest must send its report again in time, as
// after a boot, before the machine counts as verified, and its health before
// it counts as healthy. Being told to start again means nothing to a process
// that runs.
func (l *Life) adoptMachine(ctx context.Context, m *machine) *failure {
	fail := func(kind string, err error, hard bool) *failure {
		return &failure{kind: kind, machine: m, detail: err.Error(), hard: hard}
	}
	id := l.st.Guests[m.plan.Name]
	m.gen++
	m.id = &guestlink.Identity{PublicKey: id.PublicKey, BootID: id.BootID, Kernel: id.Kernel}
	v, err := l.world.Driver.Adopt(ctx, m.plan.VM)
	if err != nil {
		return fail(IncidentDied, fmt.Errorf("adopt VM: %w", err), false)
	}
	m.vm, m.served = v, true
	disk, lost := l.world.Images.Running(m.plan.Image, m.plan.VM.Disks[0].Path)
	m.disk = disk
	// One that has died is told by its events.
	ictx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	have, err := v.Info(ictx)
	if err != nil {
		m.log.Warn("the hypervisor does not say what it runs, it is asked again with the guest's report", "err", err)
	} else if err := CompareVM(m.plan.VM, have); err != nil {
		return fail(IncidentMeasurement, err, true)
	}
	if err := l.listen(m, m.id); err != nil {
		return fail(IncidentDied, err, false)
	}
	l.pump(m)
	if lost != nil {
		go l.post(msg{m: m, gen: m.gen, disk: lost}, m.quit)
	}
	l.deadline(m, bootTimeout, lateReport)
	m.log.Info("adopted", "pid", v.PID())
	return nil
}
