// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock/clocktest"
	"github.com/zos-node/zos/agent/deploy/deploytest"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
)

// TestLeaseIsHeldWhileGuestsEnd: a guest has three minutes to end, three times as long
// as the lease. Nobody else may begin meanwhile: the lease is held, and the claim
// given back only afterwards. A ledger that cannot be reached does not hold one; what must not run
// twice is then cut short before its lease is over.
func TestLeaseIsHeldWhileGuestsEnd(t *testing.T) {
	const grace = 3 * time.Minute
	for _, c := range []struct {
		on   string
		away bool
		cut  bool
	}{{"stop", false, false}, {"keep", false, false}, {"stop", true, true}, {"keep", true, false}} {
		t.Run(c.on+map[bool]string{true: ", ledger away"}[c.away], func(t *testing.T) {
			b := newBench(t)
			clk := clocktest.New(time.UnixMilli(ledgertest.Epoch))
			b.clock, b.world.Clock = clk, clk
			b.driver.Guests["web"] = deploytest.Guest{Deaf: true}
			d := b.register(func(d *spec.Deployment) {
				d.Placement.OnPartition, d.Machines[0].Process.StopGraceMs = c.on, grace.Milliseconds()
			})
			l := New(b.world, d, -1, 0)
			end := run(l)
			g := b.untilRunning(d)
			b.drained()
			if got := l.StopTime(); got != grace+stopSlack {
				t.Errorf("it may take %s to end, want %s", got, grace+stopSlack)
			}
			b.ledger.mu.Lock()
			b.ledger.down = c.away
			b.ledger.mu.Unlock()
			l.End(&Ending{Result: "released", Reason: "update to 1.1", Release: true})
			b.poll("the guest to be asked", func() bool { return slices.Contains(b.driver.Did(), "stop web") })
			asked := clk.Now()
			if c.away {
				clk.Advance(l.st.Lease - time.Second)
			}
			for !c.cut && clk.Now().Sub(asked) < grace-stopSlack {
				clk.Advance(5 * time.Second)
				b.ledger.Pass(5_000)
				if c.away {
					continue
				}
				// Each step waits for the node to know of a lease: it is not slower than that.
				b.poll("a lease", func() bool {
					b.ledger.poke()
					return l.leaseUntil().Sub(clk.Now()) > 20*time.Second
				})
			}
			if !c.cut && b.driver.Running() == 0 {
				t.Errorf("the guest did not even run for %s after it was asked to end", clk.Now().Sub(asked))
			}
			b.poll("the guest to be off", func() bool {
				if !c.cut { // what is cut short is so by no time that passes from here on
					clk.Advance(time.Second)
				}
				return b.driver.Running() == 0
			})
			b.ledger.mu.Lock()
			b.ledger.down = false
			b.ledger.mu.Unlock()
			b.ledger.poke()
			if err := b.wait(end); err != nil {
				t.Fatal(err)
			}
			b.drained()
			got := b.ledger.State().Claim(g.Index)
			if !c.away && (got.State != ledger.GrantReleased || got.ExpiresMs <= g.ExpiresMs) {
				t.Errorf("claim %+v", got)
			}
			if !strings.HasPrefix(got.CloseReason, "update to 1.1") {
				t.Errorf("closed: %q", got.CloseReason)
			}
			b.clean()
		})
	}
}
