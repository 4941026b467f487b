// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/zimage"
)

// TestLazy boots a node for each hypervisor and starts a guest whose image has
// not arrived. `make test` has the same within TestRunning, under one of them.
func TestLazy(t *testing.T) {
	if os.Getenv("ZOS_BOOT") != "all" {
		t.Skip("SKIP TestLazy: under each hypervisor with ZOS_BOOT=all (make test-boot); one of them is in TestRunning")
	}
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			w := newWorld(t)
			m := w.mirror()
			n := w.boot(driver, "lazy-"+driver, false, m)
			n.follows(t)
			big, id := imageArrives(t, w, n, m)
			n.keyIs(t, "memory") // it ran its guests without any disk
			if driver != anyDriver(t) {
				return
			}
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
			packArrives(t, w, w.boot(driver, "packed-"+driver, false, m), m, big, id)
		})
	}
}

// imageArrives runs the example's app from an image most of which the mirror
// holds back. It gives that image.
func imageArrives(t *testing.T, w *world, n *node, m *mirror) (big zimage.Manifest, id string) {
	big, id = w.ballast(32 << 20)
	held := m.hold(ballastOf(big, w.app)...)
	t.Cleanup(held.open)
	d := w.deployment("lazy")
	d.Machines[0].Image = spec.Image{OCI: big.OCI.Manifest, Platform: big.OCI.Platform, ID: id, VerityRoot: big.Verity.Root}
	d.Machines[0].Failure = spec.Failure{Action: "restart", MaxRestarts: 5, BackoffMs: 100}
	before := n.Console.Mark()
	dep := w.register(d)
	g := w.running(deadline(t), dep)
	serves := func(when string) {
		t.Helper()
		if body, err := page(n.gateway, "/"); err != nil || !strings.Contains(body, `"host":"app"`) {
			t.Fatalf("%s: %q, %v", when, body, err)
		}
	}
	serves("before the image has arrived")
	// It is asked for when the guest has found all that its start needs, or else
	// the test does not test.
	w.until(deadline(t), "that anything was held back", func(*ledger.State) bool { return held.waiting() > 0 })
	server := n.pids(t, "imaged")
	if len(server) != 1 {
		t.Fatalf("inside run %d image servers", len(server))
	}
	line, _ := n.says(t, before, `image is served while it arrives`)
	for _, want := range []string{"uid:64100", "noNewPrivs:1", "capEff:0000000000000000", "capBnd:0000000000000000", "namespaces:ipc,pid,uts", "cgroup:/zos/imaged-", "landlock:ABI"} {
		if !strings.Contains(line, want) {
			t.Errorf("the server is not held by %s: %s", want, line)
		}
	}

	if out := mustZos(t, "image", "inspect", id, "--store", w.path("store"), "--ledger", w.ledger, "--root", w.root); !strings.Contains(out, "a start read ") {
		t.Errorf("nobody sees what the start read:\n%s", out)
	}

	mark := n.Console.Mark()
	n.fault(t, map[string]any{"do": "kill", "name": "imaged"}, nil)
	w.until(deadline(t), "the restart", func(s *ledger.State) bool { return w.serving(g.Index) > 1 })
	serves("after its image's server was killed")
	if found := w.incidents("machine-restart"); len(found) != 1 || !strings.Contains(found[0].Incident.Detail, "image-server-died") {
		t.Errorf("incidents: %+v\n%s", found, w.story())
	}
	if now := n.pids(t, "imaged"); len(now) != 1 || slices.Equal(now, server) {
		t.Errorf("image servers %v before, %v after", server, now)
	}

	held.open()
	n.says(t, mark, `image has arrived`)
	serves("while its image gets its name")
	if len(n.pids(t, "imaged")) != 1 {
		t.Error("the server was ended under a running guest")
	}
	for _, p := range n.stat(t).Processes {
		if slices.Contains(vmm, p.Name) {
			n.fault(t, map[string]any{"do": "kill", "name": p.Name}, nil)
		}
	}
	w.until(deadline(t), "the restart from the file", func(s *ledger.State) bool { return w.serving(g.Index) > 2 })
	serves("from the whole file")
	if left := n.pids(t, "imaged"); len(left) != 0 {
		t.Errorf("image servers %v are left", left)
	}
	w.stop(dep, "lazy")
	w.closed(deadline(t), dep, "stopped")
	n.nothingRuns(t)
	return big, id
}

// packArrives starts the same on a node that has nothing of that image: from the
// start pack that is made of what the first start read, while the mirror sends no
// chunk at all until the guest runs its process. What the first start happened to
// read a process may miss, so then they come.
func packArrives(t *testing.T, w *world, n *node, m *mirror, big zimage.Manifest, id string) {
	n.follows(t)
	out := mustZos(t, "image", "publish", id, "--store", w.path("store"), "--to", w.path("store"), "--start", "ledger", "--ledger", w.ledger, "--root", w.root)
	t.Log(strings.TrimSpace(out))
	var all []string
	for _, c := range big.Chunks {
		all = append(all, c.ID)
	}
	held := m.hold(all...)
	t.Cleanup(held.open)
	d := w.deployment("packed")
	d.Machines[0].Image = spec.Image{OCI: big.OCI.Manifest, Platform: big.OCI.Platform, ID: id, VerityRoot: big.Verity.Root}
	before := n.Console.Mark()
	dep := w.register(d)
	w.until(deadline(t), "its process to start with no chunk of the image", func(s *ledger.State) bool {
		for _, g := range s.Claims(dep) {
			for _, r := range s.Records(g.Index) {
				if r.Record.Phase == "start" && r.Record.Result == "ok" {
					return true
				}
			}
		}
		return false
	})
	t.Logf("%d requests for chunks were held back until then", held.waiting())
	held.open()
	line, _ := n.says(t, before, `start pack of the image has come`)
	if !strings.Contains(line, `err=""`) || strings.Contains(line, "blocks=0 ") {
		t.Error(line)
	}
	w.running(deadline(t), dep)
	if body, err := page(n.gateway, "/"); err != nil || !strings.Contains(body, `"host":"app"`) {
		t.Errorf("%q, %v", body, err)
	}
	n.says(t, before, `image has arrived`)
	w.stop(dep, "packed")
	w.closed(deadline(t), dep, "stopped")
	n.nothingRuns(t)
}

// serving counts the records that a claim runs.
func (w *world) serving(claim int64) int {
	count := 0
	for _, r := range w.client.State().Records(claim) {
		if r.Record.Phase == "running" && r.Record.Result == "ok" {
			count++
		}
	}
	return count
}

// ballast is the app's image with a file of so many bytes more.
func (w *world) ballast(size int) (zimage.Manifest, string) {
	w.t.Helper()
	fail := func(err error) {
		if err != nil {
			w.t.Helper()
			w.t.Fatal(err)
		}
	}
	content := make([]byte, size)
	_, err := rand.NewChaCha8([32]byte{7}).Read(content)
	fail(err)
	var text bytes.Buffer
	out := tar.NewWriter(&text)
	fail(out.WriteHeader(&tar.Header{Name: "ballast", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size)}))
	_, err = out.Write(content)
	fail(err)
	fail(out.Close())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text.Bytes())), nil })
	fail(err)
	p, err := layout.FromPath(filepath.Join(build(w.t, w.board.Arch), "app"))
	fail(err)
	index, err := p.ImageIndex()
	fail(err)
	list, err := index.IndexManifest()
	fail(err)
	var img v1.Image
	img, err = p.Image(list.Manifests[0].Digest)
	fail(err)
	img, err = mutate.AppendLayers(img, layer)
	fail(err)
	to, err := layout.Write(w.path("ballast"), empty.Index)
	fail(err)
	fail(to.AppendImage(img))
	return w.convert(w.path("ballast"))
}

// ballastOf are the large chunks of an image that another does not have, but for
// what dm-verity reads with the tree.
func ballastOf(m, without zimage.Manifest) []string {
	const cluster = 256 << 10
	var all []string
	for _, c := range m.Chunks {
		if c.Size == zimage.MaxChunk && c.Off+c.Size <= m.DataSize/cluster*cluster && !slices.ContainsFunc(without.Chunks, func(o zimage.Chunk) bool { return o.ID == c.ID }) {
			all = append(all, c.ID)
		}
	}
	return all
}

// held are chunks that a mirror does not send.
type held struct {
	mu    sync.Mutex
	gate  chan struct{}
	ids   []string
	asked int
}

// hold holds chunks back until open.
func (m *mirror) hold(ids ...string) *held {
	h := &held{gate: make(chan struct{}), ids: ids}
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.good
	m.good = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.ContainsFunc(h.ids, func(id string) bool { return strings.Contains(r.URL.Path, id) }) {
			h.mu.Lock()
			h.asked++
			h.mu.Unlock()
			select {
			case <-h.gate:
			case <-r.Context().Done():
				return
			}
		}
		next.ServeHTTP(w, r)
	})
	return h
}

func (h *held) waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

func (h *held) open() {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.gate:
	default:
		close(h.gate)
	}
}
