// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/deploy/deploytest"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/agent/record"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/guest/wire"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/zimage"
)

func TestWholeLife(t *testing.T) {
	b := newBench(t)
	d := b.register(pair)
	end := run(New(b.world, d, -1, 0))
	g := b.untilRunning(d)
	b.drained()
	b.equal("story", b.story(g.Index), done(phase.Running))
	b.equal("order of start", b.driver.Did(), []string{"start app", "start web"})
	last := b.ledger.State().Records(g.Index)[len(phase.Order())-1].Record
	for _, key := range []string{"plan", "guestKey/web", "guestKey/app", "image/web", "spec"} {
		if !strings.HasPrefix(last.Digests[key], "sha256:") {
			t.Errorf("running has no digest %s: %v", key, last.Digests)
		}
	}
	if !strings.Contains(last.Detail, "guestKey/web=ssh-ed25519 web-1") {
		t.Errorf("detail %q", last.Detail)
	}
	b.ledger.must(b.ledger.Sign(ledger.TypeStop, ledger.Stop{Deployment: d.ID, Name: "shop", Reason: "enough"}, "author"))
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.drained()
	b.equal("story", b.story(g.Index), slices.Concat(done(phase.Running), undone(phase.Running)))
	b.equal("order of stop", b.driver.Did(), []string{"start app", "start web", "stop web", "off web", "stop app", "off app"})
	s := b.ledger.State()
	if g := s.Claim(g.Index); g.CloseResult != "stopped" || !strings.Contains(g.CloseReason, "enough") || s.Status(s.Deployment(d.ID)) != ledger.Stopped {
		t.Errorf("claim %+v, status %s", g, s.Status(s.Deployment(d.ID)))
	}
	b.clean()
}

// TestRefusedRecordEnds: a phase whose record the ledger does not take has not
// happened, so nothing may go on behind it; the rest of the story is told.
func TestRefusedRecordEnds(t *testing.T) {
	for _, n := range []phase.Name{phase.Detect, phase.Retrieve, phase.FetchContent, phase.Start, phase.Running} {
		t.Run(string(n), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.ledger.refuse = n
			d := b.register(pair)
			if err := b.wait(run(New(b.world, d, -1, 0))); err != nil {
				t.Fatal(err)
			}
			b.drained()
			s := b.ledger.State()
			g := s.Claims(d.ID)[0]
			if g.State != ledger.GrantReleased || g.CloseResult != "failed" || !strings.Contains(g.CloseReason, "refused a record: record") || !strings.Contains(g.CloseReason, "by the test") {
				t.Errorf("claim %+v", g)
			}
			b.equal("incidents", b.incidents(), []string{record.IncidentRefused + " "})
			if slices.Contains(b.story(g.Index), string(n)+" ok") {
				t.Errorf("story %v", b.story(g.Index))
			}
			b.clean()
		})
	}
}

// TestRefusedRecordIsKnownToTheNextAgent, which finds a deployment that runs.
func TestRefusedRecordIsKnownToTheNextAgent(t *testing.T) {
	b := newBench(t)
	b.ledger.refuse = phase.Running
	d := b.register(nil)
	ctx, cancel := context.WithCancel(context.Background())
	l := New(b.world, d, -1, 0)
	l.runner.Begin = func(p phase.Name) error {
		if p == phase.Running {
			b.stop() // the queue stands still
		}
		return l.begin(p)
	}
	end := make(chan error, 1)
	go func() { end <- l.Run(ctx) }()
	b.poll("all phases are done", func() bool {
		s, err := States(b.dir)
		return err == nil && len(s) == 1 && s[0].Adoptable()
	})
	cancel()
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	if b.driver.Running() != 1 {
		t.Fatal("it does not run")
	}
	b.boot()
	s, err := States(b.dir)
	if err != nil || len(s) != 1 {
		t.Fatal(s, err)
	}
	again := Resume(b.world, s[0])
	go func() { end <- again.RunAgain(context.Background()) }()
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.drained()
	if g := b.ledger.State().Claims(d.ID)[0]; g.State != ledger.GrantReleased || !strings.Contains(g.CloseReason, "refused a record") {
		t.Errorf("claim %+v", g)
	}
	b.clean()
}

// TestNoRoom: what does not fit on this node is refused before it is fetched,
// recorded, and given back for another node to try.
func TestNoRoom(t *testing.T) {
	for name, c := range map[string]struct {
		edit  func(*spec.Deployment)
		setup func(*bench)
		phase phase.Name
		want  string
	}{
		"kernel":                      {nil, func(b *bench) { b.fetcher.BlobSize = 200 << 20; b.room = 200 }, phase.FetchContent, "blob sha256:"},
		"image":                       {nil, func(b *bench) { b.room = 64 }, phase.FetchContent, "image sha256:"},
		"volume":                      {pair, func(b *bench) { b.room = 79 }, phase.VerifyResources, "volumes: no room: needs 16 MiB, 79 MiB are free"},
		"volume, by what was fetched": {pair, func(b *bench) { b.fetcher.Fetched = func() { b.room = 79 } }, phase.Volumes, "needs 16 MiB, 79 MiB are free"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			c.setup(b)
			d := b.register(c.edit)
			if err := b.wait(run(New(b.world, d, -1, 0))); err != nil {
				t.Fatal(err)
			}
			b.drained()
			g := b.ledger.State().Claims(d.ID)[0]
			b.equal("story", b.story(g.Index), slices.Concat(done(phase.Order()[phase.Index(c.phase)-1]), []string{string(c.phase) + " failed"}, undone(c.phase)))
			if g.State != ledger.GrantReleased || !strings.Contains(g.CloseReason, c.want) || !strings.Contains(g.CloseReason, "no room: needs") {
				t.Errorf("claim %+v", g)
			}
			b.clean()
		})
	}
}

// TestEachPhaseFailsOnce breaks every phase in turn, at its beginning.
func TestEachPhaseFailsOnce(t *testing.T) {
	for _, n := range phase.Order()[phase.Index(phase.Retrieve):] {
		t.Run(string(n), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			d := b.register(pair)
			l := New(b.world, d, -1, 0)
			begin := l.runner.Begin
			l.runner.Begin = func(p phase.Name) error {
				if p == n {
					return errors.Join(begin(p), errors.New("broken by the test"))
				}
				return begin(p)
			}
			if err := b.wait(run(l)); err != nil {
				t.Fatal(err)
			}
			b.drained()
			g := b.ledger.State().Claims(d.ID)[0]
			if g.CloseResult != "failed" || !strings.Contains(g.CloseReason, "broken by the test") {
				t.Errorf("claim %+v", g)
			}
			b.clean()
		})
	}
}

func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		edit     func(*spec.Deployment)
		breaks   func(*bench)
		phase    phase.Name
		want     string
		incident string
	}{
		"memory is used otherwise": {nil, func(b *bench) { b.memory = 100 }, phase.VerifyResources, "100 MiB are free", ""},
		"manifest is altered":      {nil, func(b *bench) { b.fetcher.Manifests = nil }, phase.FetchMetadata, "does not", ""},
		"manifest of another image": {nil, func(b *bench) {
			m := b.fetcher.Manifests[ledgertest.Digest("image")]
			m.OCI.Manifest = ledgertest.Digest("other")
			b.fetcher.Manifests[ledgertest.Digest("image")] = m
		}, phase.FetchMetadata, "was made of", ""},
		"kernel is altered":       {nil, func(b *bench) { b.fetcher.Err = zimage.ErrMismatch }, phase.FetchContent, "blob sha256", ""},
		"no bridge":               {nil, func(b *bench) { b.kernel.Fail = true }, phase.Network, "no such device", ""},
		"VM does not start":       {pair, func(b *bench) { b.driver.Fail = "web" }, phase.Start, "no KVM", ""},
		"guest cannot be set up":  {pair, func(b *bench) { b.driver.Guests["app"] = deploytest.Guest{Fatal: true} }, phase.Start, "guest-setup", ""},
		"guest has another root":  {nil, func(b *bench) { b.driver.Guests["web"] = deploytest.Guest{BadRoot: true} }, phase.Start, "verity table", IncidentMeasurement + " web"},
		"hypervisor is silent":    {nil, func(b *bench) { b.driver.Guests["web"] = deploytest.Guest{Mute: true} }, phase.Start, "hypervisor-silent: ask the hypervisor", ""},
		"health check never pass": {nil, func(b *bench) { b.driver.Guests["web"] = deploytest.Guest{Unhealthy: true} }, phase.PostVerify, "unhealthy: still refused", ""},
		"dependency unhealthy":    {pair, func(b *bench) { b.driver.Guests["app"] = deploytest.Guest{Unhealthy: true} }, phase.Start, "machine app: unhealthy", ""},
		"hypervisor has another configuration": {nil, func(b *bench) {
			b.driver.Lie = func(_ string, r *vm.Running) { r.MemoryMiB = 1 }
		}, phase.Start, "memoryMiB is 1, planned 512", IncidentMeasurement + " web"},
		"panic while starting": {nil, func(b *bench) {
			b.driver.Guests["web"] = deploytest.Guest{OnStart: func(v *deploytest.VM) { v.Emit(vm.EventPanic) }}
		}, "", "guest-panic", IncidentPanic + " web"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			c.breaks(b)
			d := b.register(c.edit)
			if err := b.wait(run(New(b.world, d, -1, 0))); err != nil {
				t.Fatal(err)
			}
			b.drained()
			g := b.ledger.State().Claims(d.ID)[0]
			if g.CloseResult != "failed" || !strings.Contains(g.CloseReason, c.want) {
				t.Errorf("closed %s: %s", g.CloseResult, g.CloseReason)
			}
			if c.phase != "" {
				want := slices.Concat(done(phase.Order()[phase.Index(c.phase)-1]), []string{string(c.phase) + " failed"}, undone(c.phase))
				b.equal("story", b.story(g.Index), want)
			}
			var incidents []string
			if c.incident != "" {
				incidents = []string{c.incident}
			}
			b.equal("incidents", b.incidents(), incidents)
			b.clean()
		})
	}
}

func TestNotClaimed(t *testing.T) {
	b := newBench(t)
	big := b.register(func(d *spec.Deployment) { d.Machines[0].MemoryMiB = 100_000 })
	err := b.wait(run(New(b.world, big, -1, 0)))
	if !errors.Is(err, ErrNotClaimed) || !strings.Contains(err.Error(), "needs 100000 MiB memory") {
		t.Errorf("too large: %v", err)
	}
	other := b.ledger.Join("n2", 4096)
	id := b.ledger.must(b.ledger.Register("two", 1, nil))
	b.ledger.Pass(10_000) // whichever of the two ranks first
	b.ledger.must(other.Claim(id))
	if err := b.wait(run(New(b.world, b.ledger.State().Deployment(id), -1, 0))); !errors.Is(err, ErrNotClaimed) {
		t.Errorf("claimed by another: %v", err)
	}
	if n := len(b.ledger.State().Claims(big.ID)); n != 0 {
		t.Errorf("%d claims", n)
	}
	b.clean()
}

// TestPanicWhileRunning: also where a kernel has nothing to tell of a panic but
// its console and the reset behind it. A reset alone is no panic.
func TestPanicWhileRunning(t *testing.T) {
	for name, c := range map[string]struct {
		says       string
		event      vm.EventKind
		kind       string
		quarantine int
	}{
		"pvpanic":               {"", vm.EventPanic, IncidentPanic, 1},
		"a reset after a panic": {"[ 9.1] Kernel panic - not syncing: dm-verity\r\n[ 9.2] CPU: 0\r\n", vm.EventReboot, IncidentPanic, 1},
		"a reset":               {"[ 9.1] reboot: Restarting system\r\n", vm.EventReboot, IncidentReboot, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			d := b.register(pair)
			end := run(New(b.world, d, -1, 0))
			g := b.untilRunning(d)
			b.driver.Find("app").Print(c.says)
			b.driver.Find("app").Emit(c.event)
			if err := b.wait(end); err != nil {
				t.Fatal(err)
			}
			b.drained()
			b.equal("incidents", b.incidents(), []string{c.kind + " app"})
			if did := b.driver.Did(); did[2] != "kill app" {
				t.Errorf("the VM was not killed at once: %v", did)
			}
			if kept, err := filepath.Glob(b.dir + "/store/quarantine/*"); err != nil || len(kept) != c.quarantine {
				t.Errorf("quarantine %v %v", kept, err)
			}
			if g := b.ledger.State().Claim(g.Index); g.CloseResult != "failed" || !strings.Contains(g.CloseReason, c.kind) {
				t.Errorf("claim %+v", g)
			}
			b.clean()
		})
	}
}

func TestProcessEndsWhileRunning(t *testing.T) {
	b := newBench(t)
	d := b.register(nil)
	end := run(New(b.world, d, -1, 0))
	b.untilRunning(d)
	b.driver.Find("web").Say(wire.Frame{Exit: &wire.Exit{Code: 7}})
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.drained()
	b.equal("incidents", b.incidents(), []string{"process-ended web"})
	if r := b.ledger.State().Claims(d.ID)[0].CloseReason; !strings.Contains(r, "exit code 7") {
		t.Errorf("reason %q", r)
	}
	b.clean()
}

func TestRestart(t *testing.T) {
	b := newBench(t)
	d := b.register(func(d *spec.Deployment) {
		pair(d)
		d.Machines[1].Failure = spec.Failure{Action: "restart", MaxRestarts: 2, BackoffMs: 1}
	})
	end := run(New(b.world, d, -1, 0))
	g := b.untilRunning(d)
	for i := 1; i <= 2; i++ {
		b.driver.Find("app").Say(wire.Frame{Health: &wire.Health{OK: false, Detail: "ill"}})
		b.until("running again", func(s *ledger.State) bool {
			r := s.Records(g.Index)
			return len(r) == len(phase.Order())+i && strings.Contains(r[len(r)-1].Record.Detail, fmt.Sprintf("ssh-ed25519 app-%d", i+1))
		})
	}
	b.driver.Find("app").Say(wire.Frame{Health: &wire.Health{OK: false, Detail: "ill"}})
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.drained()
	b.equal("incidents", b.incidents(), []string{IncidentRestart + " app", IncidentRestart + " app", "unhealthy app"})
	if r := b.ledger.State().Claim(g.Index).CloseReason; !strings.Contains(r, "after 2 restarts") {
		t.Errorf("reason %q", r)
	}
	b.clean()
}
