// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
	"github.com/zos-node/zos/spec"
)

// TestRefused boots one node with one mirror and shows it everything that it
// must refuse. Nothing of it may run, nothing may be left, and everything has
// to be on the ledger.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	only := w.mirror()
	w.gate.down()
	n := w.boot(anyDriver(t), "refused", false, only)

	t.Run("ledger unreachable at boot", func(t *testing.T) {
		n.says(t, 0, `waiting for.*ledger`)
		w.gate.up()
		n.follows(t)
		w.until(deadline(t), "the node offers its capacity", func(s *ledger.State) bool {
			return len(s.Nodes()) == 1 && s.Nodes()[0].Capacity != nil
		})
	})
	t.Run("checkpoint forged", func(t *testing.T) {
		forged := []byte(strings.Replace(string(get(t, w.ledger+"/checkpoint")), "\n", "\n9", 1))
		refusedCheckpoint(t, w, n, "forged", "checkpoint-forged", forged, nil)
	})
	t.Run("checkpoint rolled back", func(t *testing.T) {
		old := get(t, w.ledger+"/checkpoint")
		w.register(w.tooLarge("newer"))                                // the log grows
		n.says(t, 0, `msg="deployment not claimed".*deployment=newer`) // the node has seen it
		refusedCheckpoint(t, w, n, "rolled back", "checkpoint-rollback", old, nil)
	})
	t.Run("ledger forked", func(t *testing.T) {
		refusedCheckpoint(t, w, n, "forked", "checkpoint-fork", nil, http.FileServer(http.Dir(w.forge())))
	})
	t.Run("too large: no claim, status says why", func(t *testing.T) {
		id := w.register(w.tooLarge("huge"))
		n.says(t, 0, `deployment=huge.*memory`)
		out := mustZos(t, "status", "huge", "--ledger", w.ledger, "--root", w.root)
		if !strings.Contains(out, "memory") || !strings.Contains(strings.ToLower(out), "registered") {
			t.Errorf("status does not say why:\n%s", out)
		}
		w.until(deadline(t), "the deployment", func(s *ledger.State) bool { return s.Deployment(id) != nil })
		if c := w.client.State().Claims(id); len(c) != 0 {
			t.Errorf("it was claimed: %+v", c[0])
		}
	})
	kernel, initramfs := w.variant(n.guest, "vmlinuz", 0), w.variant(n.guest, "initramfs.cpio", 0)
	for _, c := range []struct {
		name, file, phase string
		with              func(m *spec.Machine)
	}{
		{"chunk altered at the only mirror", w.app.Chunks[len(w.app.Chunks)/2].ID, "fetch-content", func(*spec.Machine) {}},
		{"manifest altered at the only mirror", bare(w.webID), "fetch-metadata", func(m *spec.Machine) {
			m.Image = spec.Image{OCI: w.web.OCI.Manifest, Platform: w.web.OCI.Platform, ID: w.webID, VerityRoot: w.web.Verity.Root}
		}},
		{"kernel altered at the only mirror", bare(kernel), "fetch-content", func(m *spec.Machine) { m.Kernel = kernel }},
		{"initramfs altered at the only mirror", bare(initramfs), "fetch-content", func(m *spec.Machine) { m.Initramfs = initramfs }},
	} {
		t.Run(c.name, func(t *testing.T) {
			end := only.poison(c.file)
			d := w.deployment("poisoned-" + strings.Fields(c.name)[0])
			c.with(&d.Machines[0])
			id := w.register(d)
			g := w.closed(deadline(t), id, "failed")
			if end() == 0 {
				t.Fatal("the altered file was never served: the test did not test")
			}
			r := w.failedIn(g, c.phase)
			if !strings.Contains(r.Error, c.file[:12]) {
				t.Errorf("the record does not name the file: %s", r.Error)
			}
			n.nothingRuns(t)
		})
	}
	t.Run("health check never passes", func(t *testing.T) {
		d := w.deployment("sick")
		d.Machines[0].Health = spec.Health{Kind: "http", Port: 8080, Path: "/nothing-here", Args: []string{}, IntervalMs: 500, TimeoutMs: 1000, DeadlineMs: 5000, Failures: 3}
		id := w.register(d)
		g := w.closed(deadline(t), id, "failed")
		r := w.failedIn(g, "post-verify")
		if !strings.Contains(r.Error, "health") {
			t.Errorf("the record does not say why: %s", r.Error)
		}
		n.nothingRuns(t)
	})
}

// tooLarge needs more memory than any test node has.
func (w *world) tooLarge(name string) *spec.Deployment {
	d := w.deployment(name)
	d.Machines[0].MemoryMiB = 1 << 19
	return d
}

// refusedCheckpoint serves a lie, waits until the console names it, and shows
// that the node goes on with the truth, and records the lie there.
func refusedCheckpoint(t *testing.T, w *world, n *node, word, incident string, checkpoint []byte, dir http.Handler) {
	t.Helper()
	m := n.Console.Mark()
	w.gate.lie(checkpoint, dir)
	n.says(t, m, `(?i)ledger.*refused.*`+word)
	if w.gate.truth() == 0 {
		t.Fatal("the lie was never served: the test did not test")
	}
	n.says(t, m, `msg="following the ledger"|ledger is back`)
	w.until(deadline(t), "the incident "+incident, func(*ledger.State) bool { return len(w.incidents(incident)) > 0 })
}

// forge makes another history with the log's own keys: only a remembered
// state can tell that it is not the same.
func (w *world) forge() string {
	w.t.Helper()
	dir := w.path("fork")
	root, err := os.ReadFile(w.root)
	if err != nil {
		w.t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(w.path("ledger"), name))
		if err != nil {
			w.t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	signers, err := tiles.NewSigners(read("keys/log.key"), read("keys/validator.key"))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.client.Sync(ctx); err != nil {
		w.t.Fatal(err)
	}
	writer := tiles.NewWriter(tiles.Dir(dir))
	leaves, err := ledger.Genesis(root, 1)
	if err != nil {
		w.t.Fatal(err)
	}
	// Longer than the true one, so that it is not a rollback.
	for int64(len(leaves)) < w.client.State().Size()+5 {
		leaves = append(leaves, leaves[len(leaves)-1])
	}
	if err := writer.Append(leaves); err != nil {
		w.t.Fatal(err)
	}
	signed, err := signers.Sign("zos.example/e2e", writer.Head())
	if err == nil {
		err = writer.Publish(writer.Head().N, signed)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// TestMirrors boots one node with two mirrors, the first of which is bad.
func TestMirrors(t *testing.T) {
	w := newWorld(t)
	bad, good := w.mirror(), w.mirror()
	n := w.boot(anyDriver(t), "mirrors", false, bad, good)
	n.follows(t)

	t.Run("chunk, manifest, kernel and initramfs altered at one of two mirrors: goes on, recorded", func(t *testing.T) {
		d := w.deployment("one-bad")
		d.Machines[0].Kernel, d.Machines[0].Initramfs = w.variant(n.guest, "vmlinuz", 0), w.variant(n.guest, "initramfs.cpio", 0)
		ends := map[string]func() int{}
		for what, part := range map[string]string{
			"chunk": "/chunks/", "manifest": "/manifests/", "kernel": bare(d.Machines[0].Kernel), "initramfs": bare(d.Machines[0].Initramfs),
		} {
			ends[what] = bad.poison(part)
		}
		id := w.register(d)
		w.running(deadline(t), id)
		for what, end := range ends {
			if end() == 0 {
				t.Errorf("no altered %s was served: the test did not test", what)
			}
		}
		for _, kind := range []string{"chunk-mismatch", "manifest-mismatch", "blob-mismatch"} {
			w.until(deadline(t), "an incident "+kind, func(*ledger.State) bool { return len(w.incidents(kind)) > 0 })
		}
		w.stop(id, "one-bad")
		w.closed(deadline(t), id, "stopped")
	})
	t.Run("mirror gone in mid-download: resumes", func(t *testing.T) {
		d := w.deployment("cut")
		d.Machines[0].Kernel = w.variant(n.guest, "vmlinuz", 1)
		bad.mu.Lock()
		bad.cut = bare(d.Machines[0].Kernel)
		bad.mu.Unlock()
		w.running(deadline(t), w.register(d))
		bad.mu.Lock()
		cuts := bad.cuts
		bad.mu.Unlock()
		good.mu.Lock()
		ranges := good.ranges
		good.mu.Unlock()
		if cuts == 0 {
			t.Fatal("the mirror did not die: the test did not test")
		}
		if ranges == 0 {
			t.Error("the other mirror was asked for the whole file, not for the rest")
		}
	})
}
