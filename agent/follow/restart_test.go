// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
)

// shutDown is a node that ran a deployment, and was shut down.
func shutDown(t *testing.T, reason string) (h *host, id int64) {
	t.Helper()
	h = newHost(t, 1)
	h.boot()
	id = h.log.Must(h.log.Register("shop", 1, nil))
	h.status(id, ledger.Running)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := h.f.Shutdown(ctx, reason); err != nil {
		t.Fatal(err)
	}
	return h, id
}

func TestShutdown(t *testing.T) {
	h, id := shutDown(t, "the node shuts down")
	s := h.log.State()
	g := s.Claims(id)[0]
	if h.driver.Running() != 0 || !g.Closed() || g.State != ledger.GrantReleased || g.CloseResult != "released" || s.Status(s.Deployment(id)) != ledger.Registered {
		t.Errorf("%d VMs, claim %+v", h.driver.Running(), g)
	}
}

// TestRestartOfTheMachine: what an update does. Nothing of a guest outlives it,
// so its claim is given back before, to whoever ranks next; where there is nobody
// else, the same node takes it again after its boot, under a new fencing token.
func TestRestartOfTheMachine(t *testing.T) {
	h, id := shutDown(t, "update to 1.1")
	h.halt()
	s := h.log.State()
	before := s.Claims(id)[0]
	if h.driver.Running() != 0 || before.State != ledger.GrantReleased || !strings.Contains(before.CloseReason, "update to 1.1") || s.Open(s.Deployment(id)) != 1 {
		t.Fatalf("%d VMs, claim %+v, %d open", h.driver.Running(), before, s.Open(s.Deployment(id)))
	}
	for _, inMemory := range []string{"state", "records", "vm", "store"} {
		if err := os.RemoveAll(filepath.Join(h.dir, inMemory)); err != nil {
			t.Fatal(err)
		}
	}
	h.boot()
	h.status(id, ledger.Running)
	claims := h.log.State().Claims(id)
	if after := claims[len(claims)-1]; len(claims) != 2 || after.Node != before.Node || after.Index <= before.Index || h.driver.Starts["web"] != 2 {
		t.Errorf("%d starts, %d claims: %+v, then %+v", h.driver.Starts["web"], len(claims), before, after)
	}
	h.fits("shop")
}

// TestGivenUp: what a node gave back after a long time, as for each update of its
// own, does not count as what it failed at again and again.
func TestGivenUp(t *testing.T) {
	log := ledgertest.New(t)
	node, other := log.Join("n1", 4096), log.Join("n2", 4096)
	id := log.Must(log.Register("shop", 1, nil))
	short, long := int64(1000), retryMax.Milliseconds()+1000
	for i, c := range []struct {
		by   *ledgertest.Node
		kept int64 // ms
		want int   // of the first node
	}{{node, short, 1}, {node, short, 2}, {other, short, 2}, {node, short, 3}, {node, long, 1}, {node, long, 1}, {other, long, 1}, {node, short, 2}} {
		log.Pass(log.State().Root().Lease.WindowMs) // whoever ranks last may
		log.Block()
		claim := log.Must(c.by.Claim(id))
		for left := c.kept; left > 0; left -= 20_000 {
			log.Pass(min(left, 20_000))
			log.Must(c.by.Entry(ledger.TypeRenew, ledger.Renew{Claim: claim, Acted: log.Acted()}))
		}
		log.Must(c.by.Entry(ledger.TypeRelease, ledger.Release{Claim: claim, Reason: "x", Acted: log.Acted()}))
		s := log.State()
		if got := givenUp(s, s.Deployment(id), node.ID); got != c.want {
			t.Errorf("after step %d: %d times, want %d", i, got, c.want)
		}
	}
}

// TestStopTime: an update waits as long as the longest of the deployments may take.
func TestStopTime(t *testing.T) {
	h := newHost(t, 1)
	h.boot()
	if got := h.f.StopTime(); got != 0 {
		t.Errorf("a node without guests waits %s", got)
	}
	for name, grace := range map[string]int64{"one": 100_000, "two": 20_000} {
		id := h.log.Must(h.log.Register(name, 1, func(d *spec.Deployment) {
			d.Gateways, d.Machines[0].Process.StopGraceMs = nil, grace
			if name == "two" {
				d.Networks[0].Subnet, d.Machines[0].Interfaces[0].Address = "10.43.0.0/24", "10.43.0.2"
			}
		}))
		h.status(id, ledger.Running)
	}
	if got := h.f.StopTime(); got != 110*time.Second { // and what a guest gets beyond its grace
		t.Errorf("it waits %s", got)
	}
}
