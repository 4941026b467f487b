// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/deploy/deploytest"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/ledger"
)

// crashAt runs a life whose agent dies in a phase: at its beginning, or when
// it was done but not recorded.
func crashAt(b *bench, d *ledger.Deployment, n phase.Name, recorded bool) {
	b.t.Helper()
	l := New(b.world, d, -1, 0)
	begin, sink := l.runner.Begin, l.runner.Sink
	if recorded {
		l.runner.Begin = func(p phase.Name) error {
			err := begin(p)
			if p == n {
				runtime.Goexit()
			}
			return err
		}
	} else {
		l.runner.Sink = func(r phase.Report) error {
			if r.Phase == n {
				runtime.Goexit()
			}
			return sink(r)
		}
	}
	if err := b.wait(run(l)); err == nil || err.Error() != "crashed" {
		b.t.Fatalf("did not crash: %v", err)
	}
	l.closeLinks() // as the kernel does with a dead agent's lines
}

// again is what the next agent does with what it finds.
func again(b *bench) []*Life {
	b.t.Helper()
	b.boot()
	states, err := States(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	var all []*Life
	for _, s := range states {
		all = append(all, Resume(b.world, s))
	}
	return all
}

func runAgain(l *Life) <-chan error {
	done := make(chan error, 1)
	go func() { done <- l.RunAgain(context.Background()) }()
	return done
}

func TestCrashInEachPhase(t *testing.T) {
	for _, n := range phase.Order() {
		for _, recorded := range []bool{true, false} {
			name := string(n) + "/begun"
			if !recorded {
				name = string(n) + "/done"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				d := b.register(pair)
				crashAt(b, d, n, recorded)
				lives := again(b)
				if phase.Index(n) < phase.Index(phase.Claim) || n == phase.Claim && recorded {
					if len(lives) != 0 {
						t.Fatalf("%d states before a claim", len(lives))
					}
					b.clean()
					return
				}
				if len(lives) != 1 {
					t.Fatalf("%d states", len(lives))
				}
				end := runAgain(lives[0])
				if n == phase.Running && !recorded {
					// It ran: it is adopted, and recorded now.
					g := b.untilRunning(d)
					b.equal("story", b.story(g.Index), done(phase.Running))
					if b.driver.Starts["web"] != 1 {
						t.Error("started again")
					}
					lives[0].End(&Ending{Result: "failed", Reason: "end of the test", Kill: true})
				}
				if err := b.wait(end); err != nil {
					t.Fatal(err)
				}
				b.drained()
				s := b.ledger.State()
				g := s.Claims(d.ID)[0]
				if !g.Closed() {
					t.Errorf("not closed: %+v", g)
				}
				if n != phase.Running || recorded {
					if s.Status(s.Deployment(d.ID)) != ledger.Registered {
						t.Errorf("cannot be tried again: %s", s.Status(s.Deployment(d.ID)))
					}
					if story := b.story(g.Index); !slices.Contains(story, string(n)+" failed") {
						t.Errorf("the crash is not recorded: %v", story)
					}
				}
				b.clean()
			})
		}
	}
}

// adopted is a deployment that ran, whose agent has died.
func adopted(t *testing.T) (*bench, *ledger.Deployment, *ledger.Grant) {
	t.Helper()
	b := newBench(t)
	d := b.register(pair)
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan error, 1)
	l := New(b.world, d, -1, 0)
	go func() { end <- l.Run(ctx) }()
	g := b.untilRunning(d)
	b.drained()
	cancel()
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	return b, d, g
}

func TestAdoption(t *testing.T) {
	b, d, g := adopted(t)
	lives := again(b)
	end := runAgain(lives[0])
	b.ledger.must(b.ledger.Sign(ledger.TypeStop, ledger.Stop{Deployment: d.ID, Name: "shop", Reason: "enough"}, "author"))
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.drained()
	b.equal("story", b.story(g.Index), slices.Concat(done(phase.Running), undone(phase.Running)))
	b.equal("guests", b.driver.Did(), []string{"start app", "start web", "stop web", "off web", "stop app", "off app"})
	b.clean()
}

func TestAdoptedVMHasDied(t *testing.T) {
	b, _, g := adopted(t)
	b.driver.Find("app").End("died")
	if err := b.wait(runAgain(again(b)[0])); err != nil {
		t.Fatal(err)
	}
	b.drained()
	b.equal("incidents", b.incidents(), []string{IncidentDied + " app"})
	if g := b.ledger.State().Claim(g.Index); g.CloseResult != "failed" {
		t.Errorf("claim %+v", g)
	}
	b.clean()
}

func TestAdoptedGuestIsAnother(t *testing.T) {
	b, _, g := adopted(t)
	b.driver.Find("app").Impersonate("ssh-ed25519 stranger")
	if err := b.wait(runAgain(again(b)[0])); err != nil {
		t.Fatal(err)
	}
	b.drained()
	b.equal("incidents", b.incidents(), []string{IncidentProtocol + " app"})
	if r := b.ledger.State().Claim(g.Index).CloseReason; !strings.Contains(r, "another guest") {
		t.Errorf("reason %q", r)
	}
	b.clean()
}

func TestAdoptedWhileLedgerIsAway(t *testing.T) {
	b, _, _ := adopted(t)
	b.ledger.mu.Lock()
	b.ledger.down = true
	b.ledger.mu.Unlock()
	l := again(b)[0]
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan error, 1)
	go func() { end <- l.RunAgain(ctx) }()
	// A guest that is resumed is heard: its report and health come again.
	v := b.driver.Find("web")
	v.Say(deploytest.Output())
	cancel()
	if err := b.wait(end); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if b.driver.Running() != 2 {
		t.Errorf("%d VMs run on", b.driver.Running())
	}
}
