// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/zos-node/zos/agent/guestlink"
	"github.com/zos-node/zos/agent/imaged"
	"github.com/zos-node/zos/agent/plan"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/guest/wire"
)

// machine is one VM with its guest. Only the Life's goroutine touches it,
// except while boot fills it.
type machine struct {
	plan *plan.Machine
	log  *slog.Logger
	gen  int // which start this is; messages of an earlier one do not count
	vm   vm.VM
	link *guestlink.Link
	quit chan struct{}  // ends the pumps of this start
	disk *imaged.Served // what serves its image, which was not here at this start; nil when it was

	asked     chan answer // what the hypervisor says of itself, asked when the guest first spoke; nil when used
	id        *guestlink.Identity
	report    *wire.Report
	hardening map[string]string
	verified  bool // what runs was found to be what was planned
	told      bool // the process may start
	started   bool
	healthy   bool
	served    bool // it was healthy once: a failed check is a failure from then on
	gone      bool // the process or the VM has ended
	hung      bool // it says nothing any more: asking it to stop is in vain
	off       bool // the VM has ended
	exit      *wire.Exit
}

// msg is something that happened to a machine.
type msg struct {
	m     *machine
	gen   int
	vm    *vm.Event
	guest *guestlink.Event
	late  string // a deadline passed
	disk  error  // why its image is served no more
	again bool   // a restart is due
}

// failure is why a machine does not run as it should.
type failure struct {
	kind    string
	machine *machine
	detail  string
	hard    bool // never tried again: it is not what was signed
	away    bool // what it needs is not to be had here now: the claim is given back
}

func (f *failure) Error() string {
	return fmt.Sprintf("machine %s: %s: %s", f.machine.plan.Name, f.kind, f.detail)
}

func (l *Life) machine(p *plan.Machine) *machine {
	m := l.machines[p.Name]
	if m == nil {
		m = &machine{plan: p, log: l.log.With("machine", p.Name)}
		l.machines[p.Name] = m
	}
	return m
}

// outputPath is not in the VM's own directory: the VMM may write there, and
// what the agent writes must not be led elsewhere by it.
func (l *Life) outputPath(m *machine) string {
	return filepath.Join(l.world.RunDir, "output", m.plan.VM.ID+".log")
}

// boot starts the VM and takes up the line to its guest.
func (l *Life) boot(ctx context.Context, m *machine) (err error) {
	m.gen++
	m.asked, m.id, m.report, m.exit, m.hardening = nil, nil, nil, nil, nil
	m.verified, m.told, m.started, m.healthy, m.served, m.gone, m.hung, m.off = false, false, false, false, false, false, false, false
	disk := l.world.Images.Disk(m.plan.Image)
	defer disk.Done()
	if err := l.startsFrom(m, disk); err != nil {
		return err
	}
	m.disk = disk.Served
	cfg := m.plan.VM
	cfg.NICs = slices.Clone(cfg.NICs)
	for _, dir := range []string{cfg.Dir, filepath.Dir(l.outputPath(m))} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("machine %s: %w", m.plan.Name, err)
		}
	}
	defer func() {
		for _, n := range cfg.NICs {
			if n.Tap != nil {
				err = errors.Join(err, n.Tap.Close()) // the VMM has its own
			}
		}
	}()
	for i := range cfg.NICs {
		if cfg.NICs[i].Tap, err = l.world.Network.Open(l.st.Deployment, m.plan.Taps[i]); err != nil {
			return fmt.Errorf("machine %s: %w", m.plan.Name, err)
		}
	}
	if err := l.listen(m, nil); err != nil {
		return err
	}
	began := l.world.Clock.Now()
	m.vm, err = l.world.Driver.Start(ctx, cfg)
	if err != nil {
		return errors.Join(fmt.Errorf("machine %s: start VM: %w", m.plan.Name, err), m.link.Close())
	}
	m.log.Info("VM started", "hypervisor", l.world.Driver.Name(), "pid", m.vm.PID(), "took", l.world.Clock.Now().Sub(began))
	l.pump(m)
	l.deadline(m, bootTimeout, lateReport)
	return nil
}

// startsFrom notes the path of a machine's image, which is another one when it
// has arrived since the plan was made, or the last start, and whether the guest is
// told that it is still arriving.
func (l *Life) startsFrom(m *machine, disk imaged.Disk) error {
	const word = " " + wire.Arriving
	vm := &m.plan.VM
	cmdline := strings.TrimSuffix(vm.Cmdline, word)
	if disk.Served != nil {
		cmdline += word
	}
	if vm.Disks[0].Path == disk.Path && vm.Cmdline == cmdline {
		return nil
	}
	return l.update(func(*State) { vm.Disks[0].Path, vm.Cmdline = disk.Path, cmdline })
}

// listen takes up the line to the guest; known is who it must be.
func (l *Life) listen(m *machine, known *guestlink.Identity) error {
	ln, err := l.world.Driver.Listen(m.plan.VM, wire.Port)
	if err != nil {
		return fmt.Errorf("machine %s: listen for the guest: %w", m.plan.Name, err)
	}
	m.link, err = guestlink.Listen(ln, guestlink.Config{Guest: m.plan.Guest, Known: known, Output: l.outputPath(m),
		Now: l.world.Clock.Now, Silence: l.world.Silence, Log: m.log})
	if err != nil {
		return errors.Join(fmt.Errorf("machine %s: %w", m.plan.Name, err), ln.Close())
	}
	return nil
}

// pump carries what VM and guest say to the Life's one channel.
func (l *Life) pump(m *machine) {
	m.quit = make(chan struct{})
	go l.carry(m, m.gen, m.quit, m.vm.Events(), m.link.Events())
	if m.disk != nil {
		go l.carryDisk(m, m.gen, m.quit, m.disk)
	}
}

// carryDisk tells when a machine's disk is served no more. A server whose last
// reader is gone ends, too: that is no news.
func (l *Life) carryDisk(m *machine, gen int, quit <-chan struct{}, disk *imaged.Served) {
	select {
	case <-quit:
		return
	case <-disk.Ended():
	}
	if err := disk.Err(); err != nil {
		l.post(msg{m: m, gen: gen, disk: err}, quit)
	}
}

func (l *Life) carry(m *machine, gen int, quit <-chan struct{}, events <-chan vm.Event, guest <-chan guestlink.Event) {
	for {
		x := msg{m: m, gen: gen}
		select {
		case <-quit:
			return
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			// A guest that says why it ends does so before its VM is off, yet
			// both may be here by now: its word comes first. No more than what
			// waits already, or a talkative guest could hold this up.
			for range len(guest) {
				g := <-guest
				if !l.post(msg{m: m, gen: gen, guest: &g}, quit) {
					return
				}
			}
			x.vm = &e
		case e := <-guest:
			x.guest = &e
		}
		if !l.post(x, quit) {
			return
		}
	}
}

func (l *Life) post(x msg, quit <-chan struct{}) bool {
	select {
	case l.msgs <- x:
		return true
	case <-quit:
		return false
	}
}

// deadline posts a message when d has passed for this start of the machine.
func (l *Life) deadline(m *machine, d time.Duration, what string) {
	gen, quit, after := m.gen, m.quit, l.world.Clock.After(d)
	go func() {
		select {
		case <-after:
			l.post(msg{m: m, gen: gen, late: fmt.Sprintf("%s within %s", what, d)}, quit)
		case <-quit:
		}
	}()
}

// handle takes in one message; it returns a failure when the machine failed.
func (l *Life) handle(ctx context.Context, x msg) *failure {
	if x.gen != x.m.gen {
		return nil
	}
	f := l.happened(ctx, x)
	if f == nil || !f.hard || x.m.disk == nil || !x.m.disk.Died(serverMoment) {
		return f
	}
	// A guest whose disk breaks panics, as it does when the disk is wrong. It
	// was not wrong, it was gone.
	return &failure{kind: IncidentServer, machine: x.m, detail: fmt.Sprintf("its image's server died, and then: %s: %s", f.kind, f.detail)}
}

func (l *Life) happened(ctx context.Context, x msg) *failure {
	m := x.m
	fail := func(kind, detail string, hard bool) *failure {
		return &failure{kind: kind, machine: m, detail: detail, hard: hard}
	}
	switch {
	case x.late != "":
		if strings.HasPrefix(x.late, lateReport) && m.verified || m.healthy {
			return nil
		}
		return fail("timeout", x.late, false)
	case errors.Is(x.disk, imaged.ErrUnavailable):
		return &failure{kind: IncidentUnavailable, machine: m, detail: x.disk.Error(), away: true}
	case x.disk != nil:
		return fail(IncidentServer, x.disk.Error(), false)
	case x.vm != nil:
		switch x.vm.Kind {
		case vm.EventPanic:
			return fail(IncidentPanic, x.vm.Detail, true)
		case vm.EventReboot:
			if line := panicLine(m.vm); line != "" { // a kernel without pvpanic, with panic=-1
				return fail(IncidentPanic, x.vm.Detail+", behind "+line, true)
			}
			return fail(IncidentReboot, x.vm.Detail, true)
		}
		was := m.gone
		m.gone, m.off, m.healthy = true, true, false
		if was {
			return nil // its process had told its end
		}
		return fail(IncidentDied, "the VM is gone without a word of its process: "+x.vm.Detail, false)
	case x.guest != nil:
		return l.heard(ctx, m, *x.guest, fail)
	}
	return nil
}

const lateReport = "the guest has not reported"

func (l *Life) heard(ctx context.Context, m *machine, e guestlink.Event, fail func(string, string, bool) *failure) *failure {
	switch {
	case e.Hello != nil:
		m.id = e.Hello
		m.log.Info("guest speaks", "kernel", e.Hello.Kernel, "key", e.Hello.PublicKey)
		// The guest sets itself up meanwhile, and then waits for the verdict.
		m.asked = make(chan answer, 1)
		go func(v vm.VM, asked chan<- answer) { asked <- ask(ctx, v) }(m.vm, m.asked)
		if err := l.update(func(s *State) {
			if s.Guests == nil {
				s.Guests = map[string]guestlink.Identity{}
			}
			s.Guests[m.plan.Name] = *e.Hello
		}); err != nil {
			return fail("state", err.Error(), false)
		}
	case e.Report != nil:
		m.report = e.Report
		if err := l.verify(ctx, m); err != nil {
			return unverified(m, err)
		}
	case e.Started != nil:
		m.started = true
		m.log.Info("process started", "pid", e.Started.PID)
	case e.Health != nil:
		m.log.Info("health", "ok", e.Health.OK, "detail", e.Health.Detail)
		if !m.verified {
			return nil // a guest reports before it says anything else
		}
		m.healthy = e.Health.OK
		// Before the first success a failed check is only that it takes time.
		if !e.Health.OK && (e.Health.Final || m.served) {
			return fail("unhealthy", e.Health.Detail, false)
		}
		m.served = m.served || e.Health.OK
	case e.Silent > 0:
		m.healthy, m.hung = false, true
		return fail(IncidentSilent, fmt.Sprintf("nothing was heard of the guest for %s", e.Silent), false)
	case e.Exit != nil:
		m.exit, m.gone, m.healthy = e.Exit, true, false
		return fail("process-ended", describe(e.Exit), false)
	case e.Fatal != nil:
		m.gone, m.healthy = true, false
		return fail("guest-setup", e.Fatal.Phase+": "+e.Fatal.Error, false)
	case e.Err != nil:
		return fail(IncidentProtocol, e.Err.Error(), true)
	}
	return nil
}

func describe(e *wire.Exit) string {
	switch {
	case e.OOM:
		return "killed by the guest's kernel: out of memory"
	case e.Signal != "":
		return "ended by " + e.Signal
	}
	return fmt.Sprintf("exit code %d after %s", e.Code, time.Duration(e.EndedMs-e.StartedMs)*time.Millisecond)
}

// release lets the processes start whose machines were found right and whose
// dependencies are healthy.
func (l *Life) release() {
	for i := range l.planned().Machines {
		m := l.machines[l.planned().Machines[i].Name]
		if m == nil || m.told || !m.verified || slices.ContainsFunc(m.plan.DependsOn, func(n string) bool { return !l.machines[n].healthy }) {
			continue
		}
		m.told = true
		m.log.Info("process may start", "after", m.plan.DependsOn)
		if err := m.link.Start(); err != nil {
			// The guest dials again and is then told.
			m.log.Warn("tell the guest to start", "err", err)
		}
		l.deadline(m, time.Duration(m.plan.Guest.Check.DeadlineMs)*time.Millisecond+checkSlack, "not healthy")
	}
}

// closeLinks lets go of everything without touching a guest.
func (l *Life) closeLinks() {
	for _, m := range l.machines {
		if m.quit != nil {
			close(m.quit)
			m.quit = nil
		}
		if m.link != nil {
			if err := m.link.Close(); err != nil {
				m.log.Warn("close the line to the guest", "err", err)
			}
			m.link = nil
		}
	}
	l.end(errOver)
}

// errOver is the cause with which a finished life's own goroutines end.
var errOver = errors.New("the life is over")
