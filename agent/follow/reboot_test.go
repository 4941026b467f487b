// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/deploy"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/ledger"
)

// reboot is what a machine's start leaves of a node with a disk: its queue, and
// nothing of what was in memory.
func (h *host) reboot() {
	h.t.Helper()
	h.halt()
	for _, d := range []string{"state", "vm"} {
		if err := os.RemoveAll(filepath.Join(h.dir, d)); err != nil {
			h.t.Fatal(err)
		}
	}
	h.driver.EndAll()
	h.boot()
}

// TestRebootWithoutNetwork: what a node had to say while no ledger could be
// reached is said after a reboot, before that it has nothing left.
func TestRebootWithoutNetwork(t *testing.T) {
	h := newHost(t, 1)
	h.boot()
	id := h.log.Must(h.log.Register("shop", 1, nil))
	h.status(id, ledger.Running)
	claim := h.log.State().Claims(id)[0].Index
	h.until("nothing waits", func(*ledger.State) bool { return h.queue.Waiting() == 0 })
	h.serve(0, away())
	if err := h.queue.Incident(claim, "guest-panic", "web", "seen while no ledger was there"); err != nil {
		t.Fatal(err)
	}
	h.reboot()
	h.until("the ledger is missed", func(*ledger.State) bool { return h.console.count("waiting for") > 0 })
	h.reboot()
	h.serve(0, h.log.Handler())
	h.until("closed", func(s *ledger.State) bool { return s.Claims(id)[0].Closed() })
	if !h.incident("guest-panic") {
		t.Errorf("what was seen is not on the ledger: %+v", h.log.State().Incidents())
	}
	h.fits("shop")
}

// TestRebootBehindTheFirstRecord: a claim of which the ledger has no record yet, but
// the queue has, is not begun anew: its story goes on where it was.
func TestRebootBehindTheFirstRecord(t *testing.T) {
	h, id, claim := claimedBehindIt(t)
	if err := h.queue.Record(claim, phase.Report{Phase: phase.Detect, Result: phase.OK, Started: time.Now()}); err != nil {
		t.Fatal(err)
	}
	h.reboot()
	h.until("closed", func(s *ledger.State) bool { return s.Claims(id)[0].Closed() })
	g := h.log.State().Claims(id)[0]
	if g.Records != 1 || g.State != ledger.GrantReleased {
		t.Errorf("%d records, %s", g.Records, g.State)
	}
	if !slices.ContainsFunc(h.log.State().Incidents(), func(i ledger.Reported) bool { return i.Incident.Kind == deploy.IncidentLost }) {
		t.Error("nobody said that the rest of it was lost")
	}
	h.fits("shop")
}
