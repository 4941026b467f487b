// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock/clocktest"
	"github.com/zos-node/zos/agent/deploy/deploytest"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
)

func TestShutdownGivesTheClaimBack(t *testing.T) {
	b := newBench(t)
	d := b.register(pair)
	l := New(b.world, d, -1, 0)
	end := run(l)
	g := b.untilRunning(d)
	l.End(&Ending{Result: "failed", Reason: "the node shuts down", Release: true})
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.drained()
	s := b.ledger.State()
	if g := s.Claim(g.Index); g.State != ledger.GrantReleased || !g.Closed() || s.Status(s.Deployment(d.ID)) != ledger.Registered {
		t.Errorf("claim %+v, status %s", g, s.Status(s.Deployment(d.ID)))
	}
	b.clean()
}

func TestStopWhileStarting(t *testing.T) {
	b := newBench(t)
	b.driver.Guests["web"] = deploytest.Guest{Silent: true}
	d := b.register(nil)
	end := run(New(b.world, d, -1, 0))
	b.until("claimed", func(s *ledger.State) bool { return len(s.Claims(d.ID)) > 0 && s.Claims(d.ID)[0].Phase == "volumes" })
	b.ledger.must(b.ledger.Sign(ledger.TypeStop, ledger.Stop{Deployment: d.ID, Name: "shop", Reason: "changed my mind"}, "author"))
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.drained()
	if g := b.ledger.State().Claims(d.ID)[0]; g.CloseResult != "stopped" {
		t.Errorf("claim %+v", g)
	}
	b.clean()
}

func TestReplaced(t *testing.T) {
	b := newBench(t)
	d := b.register(nil)
	end := run(New(b.world, d, -1, 0))
	g := b.untilRunning(d)
	b.ledger.must(b.ledger.Register("shop", 2, nil))
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.drained()
	if g := b.ledger.State().Claim(g.Index); g.CloseResult != "replaced" {
		t.Errorf("claim %+v", g)
	}
	b.clean()
}

// TestPartition cuts the ledger off: "stop" ends before the lease, "keep" runs on.
func TestPartition(t *testing.T) {
	for _, on := range []string{"stop", "keep"} {
		t.Run(on, func(t *testing.T) {
			b := newBench(t)
			clk := clocktest.New(time.UnixMilli(ledgertest.Epoch))
			b.clock, b.world.Clock = clk, clk
			d := b.register(func(d *spec.Deployment) { d.Placement.OnPartition = on })
			l := New(b.world, d, -1, 0)
			end := run(l)
			g := b.untilRunning(d)
			was := g.ExpiresMs
			b.ledger.Pass(20_000)
			clk.Advance(20 * time.Second)
			b.until("renewed", func(s *ledger.State) bool { return s.Claim(g.Index).ExpiresMs > was })
			b.drained()
			b.ledger.mu.Lock()
			b.ledger.down = true
			b.ledger.mu.Unlock()
			if on == "keep" {
				for range 60 {
					clk.Advance(2 * time.Second)
					runtime.Gosched()
				}
				select {
				case err := <-end:
					t.Fatalf("ended: %v", err)
				default:
				}
				if b.driver.Running() != 1 {
					t.Error("does not run on")
				}
				l.End(&Ending{Result: "failed", Reason: "end of the test", Kill: true})
				clk.Advance(time.Hour)
			}
			stopped := clk.Now()
			for waiting := true; waiting; {
				select {
				case err := <-end:
					if err != nil {
						t.Fatal(err)
					}
					waiting = false
				case <-time.After(time.Millisecond):
					clk.Advance(time.Second)
				}
			}
			if on == "stop" && clk.Now().Sub(stopped) < 30*time.Second {
				t.Errorf("stopped after %v already", clk.Now().Sub(stopped))
			}
			if b.driver.Running() != 0 {
				t.Error("runs on")
			}
			b.clean()
		})
	}
}

func TestLeaseExpiredOnTheLedger(t *testing.T) {
	b := newBench(t)
	clk := clocktest.New(time.UnixMilli(ledgertest.Epoch))
	b.world.Clock = clk // does not move: the node sleeps through its lease
	d := b.register(nil)
	end := run(New(b.world, d, -1, 0))
	g := b.untilRunning(d)
	b.drained()
	for range 7 {
		b.ledger.Pass(10_000)
		b.ledger.Block()
	}
	b.ledger.poke()
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.drained()
	if g := b.ledger.State().Claim(g.Index); g.State != ledger.GrantExpired || !strings.Contains(g.CloseReason, "lease is expired") {
		t.Errorf("claim %+v", g)
	}
	b.clean()
}

func TestContextEndLeavesGuestsRunning(t *testing.T) {
	b := newBench(t)
	d := b.register(pair)
	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan error, 1)
	l := New(b.world, d, -1, 0)
	go func() { end <- l.Run(ctx) }()
	b.untilRunning(d)
	cancel()
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	if b.driver.Running() != 2 {
		t.Errorf("%d VMs run: %v", b.driver.Running(), b.driver.Did())
	}
	if s, err := States(b.dir); err != nil || len(s) != 1 || !s[0].Adoptable() {
		t.Errorf("states %v %v", s, err)
	}
}
