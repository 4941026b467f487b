// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/audit"
)

// fits wants an auditor to have nothing to say against what this node told of a
// deployment: an honest one is found silent in no story.
func (h *host) fits(name string) {
	h.t.Helper()
	r, err := audit.Run(h.t.Context(), audit.Config{Root: h.log.RootEnv, Ledger: h.log.Dir, Deployment: name})
	if err != nil {
		h.t.Fatal(err)
	}
	if !r.OK() {
		h.t.Errorf("audit of %s: %q", name, r.Discrepancies)
		for _, it := range r.Story.Items {
			h.t.Logf("%d %s %s %s %s", it.Index, it.Kind, it.Phase, it.Result, it.Detail)
		}
	}
}

// TestStateWasLostBeforeTheStop: an agent that comes back to a claim that it
// knows nothing of, on a deployment that was stopped meanwhile, says so: no
// auditor could tell it from one that hides something.
func TestStateWasLostBeforeTheStop(t *testing.T) {
	h, id, _ := claimedBehindIt(t)
	h.log.Must(h.log.Sign(ledger.TypeStop, ledger.Stop{Deployment: id, Name: "shop", Reason: "enough"}, "author"))
	for _, d := range []string{"state", "records", "vm"} {
		if err := os.RemoveAll(filepath.Join(h.dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	h.boot()
	h.until("closed", func(s *ledger.State) bool { return s.Claims(id)[0].Closed() })
	if !h.incident("story-lost") {
		t.Error("nobody said that the story was lost")
	}
	h.fits("shop")
}
