// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/deploy"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/zimage/verity"
)

// attack is one thing done to what a running deployment was started from,
// after the node has verified it.
type attack struct {
	name     string
	fault    func(w *world, n *node, t *testing.T) map[string]any // for the fault program
	restart  bool                                                 // its machine is killed, and started again from that; else it reads on
	incident string
	says     string // in the incident: what the node found in the file
}

var attacks = []attack{
	{"data byte", func(*world, *node, *testing.T) map[string]any {
		return map[string]any{"do": "flip", "file": disks, "pattern": hex.EncodeToString(canaryBytes())}
	}, false, deploy.IncidentPanic, "is not what the hash tree says of it"},
	{"truncated file", func(_ *world, n *node, t *testing.T) map[string]any {
		return map[string]any{"do": "truncate", "file": disks, "offset": canaryAt(n, t)}
	}, false, deploy.IncidentPanic, "bytes, want"},
	{"hash block", func(w *world, n *node, t *testing.T) map[string]any {
		const perBlock = verity.BlockSize / verity.HashSize
		level0 := (w.app.Verity.HashStart + perBlock - 1) / perBlock * verity.BlockSize // the last level on the disk
		return map[string]any{"do": "flip", "file": disks, "offset": w.app.DiskSize - level0 + canaryAt(n, t)/verity.BlockSize*verity.HashSize}
	}, true, deploy.IncidentContent, "is not what the hash tree says of it"},
	{"superblock", func(*world, *node, *testing.T) map[string]any {
		return map[string]any{"do": "flip", "file": disks, "offset": 1024}
	}, true, deploy.IncidentContent, "the block at byte 0 "},
	{"swapped image", func(*world, *node, *testing.T) map[string]any {
		return map[string]any{"do": "swap", "file": disks}
	}, true, deploy.IncidentContent, "is not what the hash tree says of it"},
	{"kernel", func(w *world, _ *node, _ *testing.T) map[string]any {
		return map[string]any{"do": "flip", "file": "/run/zos/store/blobs/" + bare(w.blobs["vmlinuz"]), "offset": 4096}
	}, true, deploy.IncidentContent, "hashes to"},
}

const disks = "/run/zos/store/images/*.img"

func canaryAt(n *node, t *testing.T) int64 {
	t.Helper()
	var at struct {
		Offset int64 `json:"offset"`
	}
	n.fault(t, map[string]any{"do": "find", "file": disks, "pattern": hex.EncodeToString(canaryBytes())}, &at)
	return at.Offset
}

// TestAttacks alters what running guests came from, in every way: each ends
// with the guest stopped, the file in quarantine, and the incident on the
// ledger; and the next deployment of the same image runs, fetched anew.
func TestAttacks(t *testing.T) {
	if os.Getenv("ZOS_E2E") != "attacks" {
		t.Skip("SKIP TestAttacks: make test-image runs it; one of its lines is in TestRunning")
	}
	w := newWorld(t)
	n := w.boot(anyDriver(t), "attacks", false, w.mirror())
	n.follows(t)
	for i, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			d := w.deployment("attacked-" + strings.ReplaceAll(a.name, " ", "-"))
			if a.restart {
				d.Machines[0].Failure = spec.Failure{Action: "restart", MaxRestarts: 3, BackoffMs: 100}
			}
			id := w.register(d)
			w.running(deadline(t), id)
			before := w.quarantine(t, n)
			var at struct {
				File   string `json:"file"`
				Offset int64  `json:"offset"`
			}
			n.fault(t, a.fault(w, n, t), &at)
			t.Logf("altered %s at %d", at.File, at.Offset)
			if _, err := page(n.gateway, "/"); err != nil {
				t.Fatalf("it does not run any more before it reads: %v", err)
			}
			began := time.Now()
			if a.restart {
				n.fault(t, map[string]any{"do": "kill", "name": n.vmm(t)}, nil)
			} else if body, err := page(n.gateway, "/canary"); err == nil && strings.Contains(body, string(canaryBytes())) {
				t.Fatal("the guest served the block although it is not what was signed")
			}
			g := w.closed(deadline(t), id, "failed")
			t.Logf("ATTACK %-15s closed on the ledger %.1f s later", a.name, time.Since(began).Seconds())
			n.nothingRuns(t)
			found := w.incidents(a.incident)
			if len(found) == 0 {
				t.Fatalf("no incident %s\n%s", a.incident, w.story())
			}
			last := found[len(found)-1].Incident
			if last.Claim != g.Index || last.Machine != "app" || !strings.Contains(last.Detail, a.says) || !strings.Contains(last.Detail, "quarantine") {
				t.Errorf("incident %+v, want one that says %q", last, a.says)
			}
			if after := w.quarantine(t, n); after != before+1 {
				t.Errorf("%d files in quarantine before, %d after", before, after)
			}
			if i == 0 {
				if _, code := zos(t, "audit", "--ledger", w.path("ledger"), "--root", w.root, d.Metadata.Name); code != 0 {
					t.Errorf("the audit of the failed deployment ends with %d", code)
				}
			}
		})
	}
	t.Run("stale root", func(t *testing.T) {
		d := w.deployment("stale")
		d.Machines[0].Image.VerityRoot = strings.Repeat("ab", 32)
		id := w.register(d)
		r := w.failedIn(w.closed(deadline(t), id, "failed"), "fetch-metadata")
		if !strings.Contains(r.Error, "verity root") {
			t.Errorf("the record does not say why: %s", r.Error)
		}
		n.nothingRuns(t)
	})
	t.Run("afterwards", func(t *testing.T) {
		id := w.register(w.deployment("whole"))
		w.running(deadline(t), id)
		if body, err := page(n.gateway, "/"); err != nil || !strings.Contains(body, `"host":"app"`) {
			t.Errorf("page: %q, %v", body, err)
		}
	})
}

// quarantine counts the files there.
func (w *world) quarantine(t *testing.T, n *node) int {
	t.Helper()
	var r struct {
		Files []string `json:"files"`
	}
	n.fault(t, map[string]any{"do": "list", "file": "/run/zos/store/quarantine/*"}, &r)
	return len(r.Files)
}

// vmm is the name of the hypervisor that runs a guest.
func (n *node) vmm(t *testing.T) string {
	t.Helper()
	for _, p := range n.stat(t).Processes {
		if strings.HasPrefix(p.Cgroup, "0::/zos/") {
			return p.Name
		}
	}
	t.Fatal("no guest runs")
	return ""
}
