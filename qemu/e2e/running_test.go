// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
)

// TestRunning boots a node from its disk, through the firmware, for each
// hypervisor, and does to a running deployment what can happen to it.
func TestRunning(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) { testRunning(t, driver) })
	}
}

func testRunning(t *testing.T, driver string) {
	w := newWorld(t)
	m := w.mirror()
	n := w.boot(driver, "running-"+driver, true, m)
	n.follows(t)
	ctx := deadline(t)

	// Two machines: "second" waits for "app" to be healthy.
	d := w.deployment("chain")
	second := w.machine("second", "10.77.0.11")
	second.DependsOn = []string{"app"}
	d.Machines = append(d.Machines, second)
	id := w.register(d)
	g := w.running(ctx, id)

	t.Run("reachable through the gateway", func(t *testing.T) {
		body, err := page(n.gateway, "/")
		if err != nil || !strings.Contains(body, `"host":"app"`) {
			t.Fatalf("page: %q, %v", body, err)
		}
	})
	t.Run("the panel shows it", func(t *testing.T) { n.says(t, 0, `guests +chain: running`) })
	t.Run("without a TPM: the ledger knows who can read the node's key", func(t *testing.T) { n.keyIs(t, "clear") })
	t.Run("every phase is recorded, in order", func(t *testing.T) {
		var phases []string
		for _, r := range w.client.State().Records(g.Index) {
			phases = append(phases, r.Record.Phase)
			if r.Record.Result != "ok" {
				t.Errorf("%s: %s", r.Record.Phase, r.Record.Result)
			}
		}
		if !slices.Equal(phases, everyPhase) {
			t.Errorf("phases %v\nwant   %v", phases, everyPhase)
		}
	})
	t.Run("history and audit", func(t *testing.T) {
		out := mustZos(t, "history", "chain", "--ledger", w.ledger, "--root", w.root)
		for _, want := range []string{"post-verify", "author", "security"} {
			if !strings.Contains(out, want) {
				t.Errorf("history has no %q:\n%s", want, out)
			}
		}
		mustZos(t, "audit", "--ledger", w.path("ledger"), "--root", w.root, "chain")
	})
	t.Run("agent killed: guests run on and are adopted", func(t *testing.T) { agentKilled(t, n) })
	t.Run("agent keeps crashing: back-off, console says why", func(t *testing.T) { agentCrashes(t, n) })
	t.Run("ledger unreachable for a minute: serves on", func(t *testing.T) { ledgerAway(t, w, n, id) })
	t.Run("a byte flipped under a running guest", func(t *testing.T) { byteFlipped(t, w, n, id) })
	if driver == anyDriver(t) {
		t.Run("an image that has not arrived", func(t *testing.T) { imageArrives(t, w, n, m) })
	}
	t.Run("stop", func(t *testing.T) {
		id := w.register(w.deployment("stopped"))
		w.running(deadline(t), id)
		w.stop(id, "stopped")
		w.closed(deadline(t), id, "stopped")
		n.nothingRuns(t)
	})
	t.Run("power button: guests end, then the machine", func(t *testing.T) {
		id := w.register(w.deployment("last"))
		w.running(deadline(t), id)
		m := n.Console.Mark()
		if err := n.PowerButton(deadline(t)); err != nil {
			t.Fatal(err)
		}
		n.says(t, m, `the agent has ended its guests|agent asks for the end`)
		n.says(t, m, `the machine ends now`)
		if err := n.Wait(deadline(t)); err != nil {
			t.Fatal(err)
		}
	})
}

// everyPhase is what a deployment that runs has recorded.
var everyPhase = strings.Fields("detect match claim retrieve verify-signatures verify-resources verify-network fetch-metadata fetch-content plan network volumes start post-verify running")

func agentKilled(t *testing.T, n *node) {
	before, agent := n.guests(t), n.pids(t, "agent")
	if len(before) != 2 || len(agent) != 1 {
		t.Fatalf("inside run %d hypervisors and %d agents", len(before), len(agent))
	}
	m := n.Console.Mark()
	n.fault(t, map[string]any{"do": "kill", "name": "agent"}, nil)
	n.says(t, m, `program ended.*signal killed`)
	if body, err := page(n.gateway, "/"); err != nil || !strings.Contains(body, `"host":"app"`) {
		t.Errorf("while the agent was dead: %q, %v", body, err)
	}
	n.says(t, m, `msg=adopted.*machine=app`)
	n.says(t, m, `msg="following the ledger"`)
	if after := n.guests(t); !slices.Equal(before, after) {
		t.Errorf("hypervisors %v before, %v after", before, after)
	}
	if now := n.pids(t, "agent"); slices.Equal(now, agent) {
		t.Error("the agent was not killed")
	}
}

func agentCrashes(t *testing.T, n *node) {
	before := n.guests(t)
	m := n.Console.Mark()
	for _, wait := range []string{"wait=2s", "wait=4s"} {
		n.fault(t, map[string]any{"do": "kill", "name": "agent"}, nil)
		_, m = n.says(t, m, `program ended.*`+wait)
		_, m = n.says(t, m, `program started.*agent`)
	}
	n.says(t, m, `msg="following the ledger"`)
	if body, err := page(n.gateway, "/"); err != nil || !strings.Contains(body, `"host":"app"`) {
		t.Errorf("after the crashes: %q, %v", body, err)
	}
	if after := n.guests(t); !slices.Equal(before, after) {
		t.Errorf("hypervisors %v before, %v after", before, after)
	}
}

func ledgerAway(t *testing.T, w *world, n *node, id int64) {
	m := n.Console.Mark()
	w.gate.down()
	n.says(t, m, `waiting for.*ledger`)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Second) {
		if body, err := page(n.gateway, "/"); err != nil || !strings.Contains(body, `"host":"app"`) {
			t.Fatalf("while the ledger was away: %q, %v", body, err)
		}
	}
	m = n.Console.Mark()
	w.gate.up()
	n.says(t, m, `msg="following the ledger"|ledger is back`)
	if err := w.client.Sync(deadline(t)); err != nil { // else it is what we knew before
		t.Fatal(err)
	}
	if got := w.client.State().Status(w.client.State().Deployment(id)); got != ledger.Running {
		t.Errorf("afterwards the deployment is %s", got)
	}
}

// byteFlipped changes the canary in the disk file of the running guests,
// which they have not read yet, and then has one of them read it.
func byteFlipped(t *testing.T, w *world, n *node, id int64) {
	canary := canaryBytes()
	var at struct {
		File   string `json:"file"`
		Offset int64  `json:"offset"`
	}
	n.fault(t, map[string]any{"do": "flip", "file": "/run/zos/store/images/*", "pattern": hex.EncodeToString(canary)}, &at)
	t.Logf("flipped a bit at offset %d of %s", at.Offset, at.File)
	if _, err := page(n.gateway, "/"); err != nil {
		t.Fatalf("before the read: %v", err)
	}
	m := n.Console.Mark()
	if body, err := page(n.gateway, "/canary"); err == nil && strings.Contains(body, string(canary)) {
		t.Fatal("the guest served the block although it is not what was signed")
	}
	n.says(t, m, `guest-panic`)
	w.closed(deadline(t), id, "failed")
	found := w.incidents("guest-panic")
	if len(found) == 0 || found[0].Incident.Machine != "app" {
		t.Errorf("incidents: %+v\n%s", found, w.story())
	}
	n.nothingRuns(t)
	if _, code := zos(t, "audit", "--ledger", w.path("ledger"), "--root", w.root, "chain"); code != 0 {
		t.Errorf("the audit of the failed deployment ends with %d", code)
	}
}

// canaryBytes are the first bytes of the canary that the example's image
// carries; examples/shop/mkimages makes it.
func canaryBytes() []byte {
	b := make([]byte, 32)
	r := rand.NewChaCha8([32]byte([]byte("zos example shop: the canary ...")))
	for i := range b {
		b[i] = byte(r.Uint64())
	}
	return b
}
