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
