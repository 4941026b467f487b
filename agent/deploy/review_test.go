// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock/clocktest"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
)

// poll waits for what no ledger tells.
func (b *bench) poll(what string, ok func() bool) {
	b.t.Helper()
	for limit := time.Now().Add(60 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			b.t.Fatalf("never: %s", what)
		}
	}
}

// TestUndoThatFails: nothing is closed or forgotten while a bridge is left,
// neither by this agent nor by the next one.
func TestUndoThatFails(t *testing.T) {
	for _, next := range []bool{false, true} {
		b := newBench(t)
		b.kernel.Stick(true)
		d := b.register(pair)
		l := New(b.world, d, -1, 0)
		begin := l.runner.Begin
		l.runner.Begin = func(p phase.Name) error {
			if p == phase.Start {
				return errors.Join(begin(p), errors.New("broken by the test"))
			}
			return begin(p)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		end := make(chan error, 1)
		go func() { end <- l.Run(ctx) }()
		b.poll("the end is noted", func() bool {
			s, err := States(b.dir)
			return err == nil && len(s) == 1 && s[0].Ending != nil
		})
		claim := l.claimed()
		if next {
			cancel()
			if err := b.wait(end); err != nil {
				t.Fatal(err)
			}
			all := again(b)
			if len(all) != 1 || all[0].Slot() != 0 {
				t.Fatalf("%d states are left", len(all))
			}
			go func() { end <- all[0].RunAgain(context.Background()) }()
		}
		b.drained()
		if b.world.Records.Closed(claim) || b.kernel.Left() != 1 {
			t.Errorf("closed with %d bridges left", b.kernel.Left())
		}
		b.kernel.Stick(false)
		if err := b.wait(end); err != nil {
			t.Fatal(err)
		}
		b.drained()
		if g := b.ledger.State().Claim(claim); g.CloseResult != "failed" || !strings.Contains(g.CloseReason, "broken by the test") {
			t.Errorf("claim %+v", g)
		}
		b.clean()
	}
}

// TestAdoptionBelievesNothing: what runs is compared anew, and a guest that
// says nothing is not adopted for good.
func TestAdoptionBelievesNothing(t *testing.T) {
	t.Run("hypervisor", func(t *testing.T) {
		b, _, _ := adopted(t)
		b.driver.SetMemory("app", 1)
		if err := b.wait(runAgain(again(b)[0])); err != nil {
			t.Fatal(err)
		}
		b.drained()
		b.equal("incidents", b.incidents(), []string{IncidentMeasurement + " app"})
		b.clean()
	})
	t.Run("report", func(t *testing.T) {
		b, _, _ := adopted(t)
		b.driver.Find("app").Alter()
		if err := b.wait(runAgain(again(b)[0])); err != nil {
			t.Fatal(err)
		}
		b.drained()
		b.equal("incidents", b.incidents(), []string{IncidentMeasurement + " app"})
		b.clean()
	})
	t.Run("silence", func(t *testing.T) {
		b, _, _ := adopted(t)
		b.driver.Find("app").Hang()
		clk := clocktest.New(time.Now())
		b.clock = clk
		l := again(b)[0]
		l.st.OnPartition = "keep"
		end := runAgain(l)
		b.poll("its end", func() bool {
			clk.Advance(time.Second)
			return len(end) == 1
		})
		b.drained()
		b.equal("incidents", b.incidents(), []string{"timeout app"})
		b.clean()
	})
}

func TestHungGuest(t *testing.T) {
	b := newBench(t)
	b.world.Silence = 600 * time.Millisecond
	d := b.register(pair)
	end := run(New(b.world, d, -1, 0))
	b.untilRunning(d)
	b.driver.Find("app").Hang()
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.drained()
	b.equal("incidents", b.incidents(), []string{IncidentSilent + " app"})
	b.clean()
}

// TestCrashInRestartBackoff: the next agent boots the machine again.
func TestCrashInRestartBackoff(t *testing.T) {
	b := newBench(t)
	d := b.register(func(d *spec.Deployment) {
		pair(d)
		d.Machines[1].Failure = spec.Failure{Action: "restart", MaxRestarts: 2, BackoffMs: 60_000}
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	end := make(chan error, 1)
	first := New(b.world, d, -1, 0)
	go func() { end <- first.Run(ctx) }()
	g := b.untilRunning(d)
	b.driver.Find("app").End("died")
	b.until("restart", func(*ledger.State) bool { return slices.Contains(b.incidents(), IncidentRestart+" app") })
	b.drained()
	cancel()
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	l := again(b)[0]
	over := runAgain(l)
	b.until("running again", func(s *ledger.State) bool {
		r := s.Records(g.Index)
		return strings.Contains(r[len(r)-1].Record.Detail, "ssh-ed25519 app-2")
	})
	if n := b.driver.Starts["web"]; n != 1 {
		t.Errorf("web was started %d times", n)
	}
	l.End(&Ending{Result: "failed", Reason: "end of the test", Kill: true})
	if err := b.wait(over); err != nil {
		t.Fatal(err)
	}
	b.clean()
}

// TestSameSubnet: a life that has matched holds its networks; another one does
// not even claim.
func TestSameSubnet(t *testing.T) {
	b := newBench(t)
	one, two := b.ledger.must(b.ledger.Register("one", 1, nil)), b.ledger.must(b.ledger.Register("two", 1, nil))
	first := New(b.world, b.ledger.State().Deployment(one), -1, 0)
	if err := first.match(t.Context(), &phase.Out{}); err != nil {
		t.Fatal(err)
	}
	d := b.ledger.State().Deployment(two)
	if err := b.wait(run(New(b.world, d, -1, 1))); !errors.Is(err, ErrNotClaimed) || !strings.Contains(err.Error(), "of another deployment") {
		t.Errorf("claimed beside it: %v", err)
	}
	if n := len(b.ledger.State().Claims(two)); n != 0 {
		t.Errorf("%d claims", n)
	}
	b.world.Network.Free(one)
	l := New(b.world, d, -1, 1)
	end := run(l)
	b.untilRunning(d)
	l.End(&Ending{Result: "failed", Reason: "end of the test", Kill: true})
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.clean()
}

func TestLocalFailureGivesTheClaimBack(t *testing.T) {
	b := newBench(t)
	b.memory = 100
	d := b.register(nil)
	if err := b.wait(run(New(b.world, d, -1, 0))); err != nil {
		t.Fatal(err)
	}
	b.drained()
	if g := b.ledger.State().Claims(d.ID)[0]; g.State != ledger.GrantReleased {
		t.Errorf("claim %+v", g)
	}
	b.clean()
}

// TestLeaseCountsFromTheOldestRenewal: of two renewals that are not seen, the
// one that is seen at last may be the first.
func TestLeaseCountsFromTheOldestRenewal(t *testing.T) {
	b := newBench(t)
	clk := clocktest.New(time.UnixMilli(ledgertest.Epoch))
	b.clock, b.world.Clock = clk, clk
	d := b.register(nil)
	l := New(b.world, d, -1, 0)
	end := run(l)
	b.untilRunning(d)
	b.drained()
	held := func() [][]byte {
		b.ledger.mu.Lock()
		defer b.ledger.mu.Unlock()
		return slices.Clone(b.ledger.held)
	}
	b.ledger.mu.Lock()
	b.ledger.hold = true
	b.ledger.mu.Unlock()
	var first time.Time
	for n := 1; n <= 2; n++ {
		b.poll("a renewal", func() bool {
			if len(held()) >= n {
				return true
			}
			clk.Advance(time.Second)
			time.Sleep(5 * time.Millisecond)
			return len(held()) >= n
		})
		if n == 1 {
			first = clk.Now()
		}
	}
	b.ledger.Pass(30_000)
	b.ledger.mu.Lock()
	b.ledger.hold = false
	raw := b.ledger.held[0]
	b.ledger.mu.Unlock()
	was := l.leaseUntil()
	if _, err := b.ledger.Submit(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	b.poll("a longer lease", func() bool { return l.leaseUntil().After(was) })
	if until := l.leaseUntil(); until.After(first.Add(l.st.Lease)) {
		t.Errorf("lease until %v, the renewal was sent at %v", until, first)
	}
	l.End(&Ending{Result: "failed", Reason: "end of the test", Kill: true})
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
}

func (l *Life) leaseUntil() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.st.LeaseUntil
}
