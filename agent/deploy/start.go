// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zos-node/zos/agent/content"
	"github.com/zos-node/zos/agent/imaged/trace"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/wait"
)

// start boots all VMs at once, checks each guest as soon as it reports, and
// lets its process start when the check passed and its dependencies are
// healthy. Nothing of the workload runs before that.
func (l *Life) start(ctx context.Context, out *phase.Out) error {
	p := l.planned()
	results := make(chan error, len(p.Machines))
	for i := range p.Machines {
		m := l.machine(&p.Machines[i])
		go func() { results <- l.boot(ctx, m) }()
	}
	var errs []error
	for range p.Machines {
		errs = append(errs, <-results)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	err := l.until(ctx, "processes to start", func(m *machine) string {
		switch {
		case m.started:
			return ""
		case m.told:
			return "its process"
		case m.verified:
			return strings.Join(m.plan.DependsOn, " and ")
		}
		return "its guest"
	})
	if err != nil {
		return err
	}
	out.Detail = fmt.Sprintf("%d VMs under %s", len(p.Machines), l.world.Driver.Name())
	return nil
}

// postVerify compares once more, everything together, and wants every machine
// healthy.
func (l *Life) postVerify(ctx context.Context, out *phase.Out) error {
	err := l.until(ctx, "first health", func(m *machine) string {
		if m.healthy {
			return ""
		}
		return "health"
	})
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(l.machines)) {
		m := l.machines[name]
		if err := l.verify(ctx, m); err != nil {
			return l.failed(unverified(m, err))
		}
		out.Digest("verity/"+name, m.plan.Verity.Root)
		out.Digest("cmdline/"+name, digest(m.plan.VM.Cmdline))
		for _, key := range slices.Sorted(maps.Keys(m.hardening)) {
			out.Detail += fmt.Sprintf("%s %s=%s; ", name, key, m.hardening[key])
		}
	}
	return nil
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// running marks the deployment as serving. The record carries the guests'
// public keys, so that a client can prove later whom it talks to.
func (l *Life) running(_ context.Context, out *phase.Out) error {
	if err := l.serving(out); err != nil {
		return err
	}
	return l.update(func(s *State) { s.Running = true })
}

// maxDetail is less than what the ledger takes of a text.
const maxDetail = 7 << 10

func (l *Life) serving(out *phase.Out) error {
	p := l.planned()
	d, err := p.Digest()
	if err != nil {
		return err
	}
	out.Digest("spec", l.st.Digest)
	out.Digest("plan", d)
	out.Digest("hypervisor", l.world.Hypervisor.Digest)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range p.Machines {
		id := l.st.Guests[m.Name]
		out.Digest("guestKey/"+m.Name, digest(id.PublicKey))
		out.Digest("image/"+m.Name, m.Image)
		out.Detail += fmt.Sprintf("guestKey/%s=%s; ", m.Name, id.PublicKey)
	}
	// Where nobody has said it yet, what the starts read of images that were
	// still arriving; as much as a record holds.
	for i, m := range p.Machines {
		live := l.machines[m.Name]
		if live == nil || live.disk == nil {
			continue
		}
		if known := trace.Last(l.world.Ledger.State(), m.Image, live.disk.Manifest()); known == nil || !known.Exact() {
			out.Detail += trace.Detail(m.Name, live.disk.Read(), (maxDetail-len(out.Detail))/(len(p.Machines)-i))
		}
	}
	return nil
}

// until handles messages until lacks gives "" for every machine. A failure of
// any machine ends it.
func (l *Life) until(ctx context.Context, what string, lacks func(*machine) string) error {
	line := wait.Start(l.log, l.world.Clock.Now(), what, "")
	for {
		l.release()
		var waits []string
		for _, name := range slices.Sorted(maps.Keys(l.machines)) {
			if w := lacks(l.machines[name]); w != "" {
				waits = append(waits, name+": "+w)
			}
		}
		if len(waits) == 0 {
			return nil
		}
		line.Detail(strings.Join(waits, ", "))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-l.world.Clock.After(tick):
			line.Tick(now)
		case x := <-l.msgs:
			if f := l.handle(ctx, x); f != nil {
				return l.failed(f)
			}
		}
	}
}

// failed does at once what a failure demands of its machine: a VM that is not
// what was signed is killed, a disk that its guest found wrong is taken out of
// use, and both are reported. What the machine said last is shown.
func (l *Life) failed(f *failure) error {
	m := f.machine
	words := lastWords(m) // killing removes what the console said
	errs := []error{f}
	if f.hard || f.away {
		errs = append(errs, l.kill(m))
	}
	m.log.Error("machine failed", "kind", f.kind, "err", f.detail)
	for _, w := range words {
		m.log.Info("last words", "from", w.from, "line", w.line)
	}
	if f.away {
		return onlyHere(errors.Join(append(errs, l.world.Records.Incident(l.claimed(), f.kind, m.plan.Name, f.detail))...))
	}
	if !f.hard {
		return f
	}
	record := func(detail string) error {
		return l.world.Records.Incident(l.claimed(), f.kind, m.plan.Name, f.detail+detail)
	}
	if f.kind != IncidentPanic {
		return errors.Join(append(errs, record(""))...)
	}
	if m.disk != nil && l.world.Images.IsArriving(m.disk) {
		errs = append(errs, record("; what had arrived of the disk goes into quarantine"), l.world.Images.Condemn(context.Background(), m.disk))
		return errors.Join(errs...)
	}
	errs = append(errs, l.world.Content.Quarantine(l.world.Content.ImagePath(m.plan.Image), func(detail string) error { return record("; " + detail) }))
	return errors.Join(errs...)
}

// Condemned hears of a file of the store that this deployment needs and that
// was found wrong. When it may run from it already, that is an incident of its
// own, and it ends at once: what a guest has read of the file was checked by
// its kernel, but nobody lets it go on with a disk that somebody changes.
func (l *Life) Condemned(f content.Finding) (mine bool, err error) {
	l.mu.Lock()
	claim, p, begun := l.st.Claim, l.st.Plan, phase.Index(l.st.Phase)
	l.mu.Unlock()
	if claim < 0 || p == nil || begun < phase.Index(phase.Start) {
		return false, nil
	}
	var names []string
	for _, m := range p.Machines {
		if f.Path == m.VM.Kernel || f.Path == m.VM.Initramfs || f.Path == l.world.Content.ImagePath(m.Image) {
			names = append(names, m.Name)
		}
	}
	if len(names) == 0 {
		return false, nil
	}
	for _, name := range names {
		err = errors.Join(err, l.world.Records.Incident(claim, IncidentContent, name, f.String()))
	}
	l.End(&Ending{Result: resultFailed, Reason: fmt.Sprintf("machine %s: %v", strings.Join(names, ", "), f), Kill: true})
	return true, err
}

type word struct{ from, line string }

// consoled is a VM whose guest's kernel has a console.
type consoled interface{ Console() string }

// lastWords is the end of the process's output and of the guest's console.
func lastWords(m *machine) []word {
	const lines = 16 // a kernel's panic with its registers
	var out []word
	add := func(from, text string) {
		all := strings.Split(strings.TrimRight(text, "\r\n"), "\n")
		for _, line := range all[max(0, len(all)-lines):] {
			if line = strings.TrimRight(line, "\r"); line != "" {
				out = append(out, word{from, line})
			}
		}
	}
	if m.link != nil {
		add("process", m.link.Tail())
	}
	if c, ok := m.vm.(consoled); ok {
		add("console", c.Console())
	}
	return out
}

// panicLine is what the guest's kernel said last of a panic on its console,
// "" if it said nothing of one.
func panicLine(v vm.VM) string {
	c, ok := v.(consoled)
	if !ok {
		return ""
	}
	console := c.Console()
	i := strings.LastIndex(console, "Kernel panic - not syncing")
	if i < 0 {
		return ""
	}
	line, _, _ := strings.Cut(console[i:], "\n")
	return fmt.Sprintf("%.200q", strings.TrimRight(line, "\r"))
}
