// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/content"
	"github.com/zos-node/zos/agent/deploy/deploytest"
	"github.com/zos-node/zos/agent/imaged"
	"github.com/zos-node/zos/agent/network"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/agent/record"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/zimage"
)

// testLedger is a real ledger that can be out of reach.
type testLedger struct {
	*ledgertest.Log
	mu      sync.Mutex
	down    bool
	hold    bool       // entries get a receipt, but do not come onto the ledger
	held    [][]byte   // these
	refuse  phase.Name // a record that says that this was done is refused
	changed chan struct{}
}

func (l *testLedger) Submit(ctx context.Context, raw []byte) (ledger.Receipt, error) {
	l.mu.Lock()
	down := l.down
	if l.hold && !down {
		l.held = append(l.held, raw)
		l.mu.Unlock()
		return ledger.Receipt{}, nil
	}
	refuse := l.refuse
	l.mu.Unlock()
	if down {
		return ledger.Receipt{}, ledger.ErrUnreachable
	}
	if e, err := ledger.Decode(raw); err == nil {
		if r, ok := e.Payload.(*ledger.Record); ok && r.Phase == string(refuse) && r.Result == phase.OK {
			return ledger.Receipt{}, &ledger.Refused{Reason: "by the test", Index: -1}
		}
	}
	r, err := l.Log.Submit(ctx, raw)
	l.poke()
	return r, err
}

func (l *testLedger) Has(raw []byte) bool {
	e, err := ledger.Decode(raw)
	if err != nil {
		return false
	}
	_, ok := l.State().Indexed(e)
	return ok
}

func (l *testLedger) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *testLedger) poke() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *testLedger) must(entry []byte) int64 {
	i := l.Must(entry)
	l.poke()
	return i
}

// bench is a node whose outside is fake and whose ledger is real.
type bench struct {
	t       *testing.T
	dir     string
	ledger  *testLedger
	node    *ledgertest.Node
	driver  *deploytest.Driver
	kernel  *deploytest.Kernel
	fetcher *deploytest.Fetcher
	clock   clock.Clock
	memory  int64
	room    int64 // MiB of storage
	check   func(*os.File, content.Want) error
	found   func(content.Finding) error
	world   *World
	stop    context.CancelFunc
}

func newBench(t *testing.T) *bench {
	t.Helper()
	// Unix sockets have short names.
	dir, err := os.MkdirTemp("", "zd")
	if err != nil {
		t.Fatal(err)
	}
	log := ledgertest.New(t)
	b := &bench{t: t, dir: dir, ledger: &testLedger{Log: log, changed: make(chan struct{})}, node: log.Join("n1", 8192), driver: deploytest.NewDriver(),
		kernel: &deploytest.Kernel{}, clock: clock.System{}, memory: 8192, room: 10000, check: deploytest.Check,
		fetcher: &deploytest.Fetcher{Manifests: map[string]zimage.Manifest{ledgertest.Digest("image"): {Format: zimage.Format, DataSize: 40960, DiskSize: 45056,
			OCI:    zimage.OCI{Manifest: ledgertest.Digest("oci"), Platform: "linux/amd64", Config: ledgertest.Digest("config")},
			Verity: zimage.Verity{Root: strings.TrimPrefix(ledgertest.Digest("verity"), "sha256:"), HashStart: 10},
			Chunks: []zimage.Chunk{{ID: strings.TrimPrefix(ledgertest.Digest("chunk"), "sha256:"), Size: 45056}}}}}}
	b.found = func(f content.Finding) error { return fmt.Errorf("no test expected %v", f) }
	b.boot()
	t.Cleanup(func() {
		b.stop()
		b.driver.EndAll()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return b
}

// boot is a new agent on the same node.
func (b *bench) boot() {
	b.t.Helper()
	if b.stop != nil {
		b.stop()
	}
	ctx, cancel := context.WithCancel(context.Background())
	var out io.Writer = io.Discard
	if testing.Verbose() {
		out = os.Stderr
	}
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	q, err := record.Open(record.Config{Dir: filepath.Join(b.dir, "queue"), Ledger: b.ledger, Signer: b.node.Key, Clock: clock.System{}, Log: log, Moved: func() {}})
	if err != nil {
		b.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); q.Run(ctx) }()
	b.stop = func() { cancel(); <-done }
	store, err := content.Open(content.Config{Dir: filepath.Join(b.dir, "store"), Fetch: b.fetcher, Check: b.check, Clock: b.clock, Log: log,
		Space: func(string) (content.Space, error) { return content.Space{FreeMiB: b.room, QuotaMiB: 10000}, nil },
		Found: func(f content.Finding) error { return b.found(f) }})
	if err != nil {
		b.t.Fatal(err)
	}
	net := network.NewManager(b.kernel)
	if err := net.Base(); err != nil {
		b.t.Fatal(err)
	}
	if err := net.SetUplink("eth0", []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}); err != nil {
		b.t.Fatal(err)
	}
	b.world = &World{Node: b.node.ID, Signer: b.node.Key, Ledger: b.ledger, Records: q, Content: store, Images: imaged.NewImages(store, log), Driver: b.driver,
		Hypervisor: ledger.Hypervisor{Name: "qemu", Version: "10", Digest: ledgertest.Digest("qemu"), Source: "debian"},
		Network:    net, Clock: b.clock, Log: log, RunDir: b.dir, Cgroups: filepath.Join(b.dir, "cgroup"),
		Resources: func() (int64, error) { return b.memory, nil }}
}

// pair edits a spec into app and web, where web waits for app.
func pair(d *spec.Deployment) {
	app := d.Machines[0]
	app.Name = "app"
	app.Interfaces = []spec.Interface{{Network: "net", Address: "10.42.0.3"}}
	d.Machines[0].DependsOn = []string{"app"}
	d.Machines[0].Files = []spec.File{{Path: "/etc/x", Mode: "0644", Encoding: "utf-8", Content: "hello"}}
	d.Volumes = []spec.Volume{{Name: "data", SizeMiB: 16, Filesystem: "ext4", Encryption: "none", AtEnd: "delete"}}
	app.Mounts = []spec.Mount{{Type: "volume", Volume: "data", Path: "/data", Mode: "0755"}, {Type: "tmpfs", Path: "/tmp", SizeMiB: 1, Mode: "1777"}}
	d.Machines = append(d.Machines, app)
}

func (b *bench) register(edit func(*spec.Deployment)) *ledger.Deployment {
	b.t.Helper()
	id := b.ledger.must(b.ledger.Register("shop", 1, edit))
	return b.ledger.State().Deployment(id)
}

// run starts a life and gives its end.
func run(l *Life) <-chan error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("crashed")
		defer func() { done <- err }()
		err = l.Run(context.Background())
	}()
	return done
}

func (b *bench) wait(done <-chan error) error {
	b.t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(60 * time.Second):
		buf := make([]byte, 1<<20)
		b.t.Fatalf("it does not end\n%s", buf[:runtime.Stack(buf, true)])
		return nil
	}
}

// until polls the ledger for a condition.
func (b *bench) until(what string, ok func(*ledger.State) bool) {
	b.t.Helper()
	limit := time.After(60 * time.Second)
	for !ok(b.ledger.State()) {
		select {
		case <-b.ledger.Changed():
		case <-limit:
			b.t.Fatalf("never: %s", what)
		}
	}
}

func (b *bench) untilRunning(d *ledger.Deployment) *ledger.Grant {
	b.t.Helper()
	var g *ledger.Grant
	b.until("running", func(s *ledger.State) bool {
		for _, c := range s.Claims(d.ID) {
			if c.Running {
				g = c
				return true
			}
		}
		return false
	})
	return g
}

// drained waits until all that was recorded is on the ledger.
func (b *bench) drained() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := b.world.Records.Drain(ctx); err != nil {
		b.t.Fatal(err)
	}
}

// story is the records of a claim as "phase result".
func (b *bench) story(claim int64) []string {
	var out []string
	for _, r := range b.ledger.State().Records(claim) {
		out = append(out, r.Record.Phase+" "+r.Record.Result)
	}
	return out
}

func done(upTo phase.Name) []string {
	var out []string
	for _, n := range phase.Order() {
		out = append(out, string(n)+" ok")
		if n == upTo {
			return out
		}
	}
	return out
}

// undone are the records of undoing what had been begun at a phase.
func undone(from phase.Name) []string {
	var out []string
	for _, n := range []phase.Name{phase.Start, phase.Volumes, phase.Network, phase.FetchContent} {
		if phase.Index(n) <= phase.Index(from) {
			out = append(out, string(n)+" undone")
		}
	}
	return out
}

// clean fails when anything of a deployment is left on the node.
func (b *bench) clean() {
	b.t.Helper()
	if n := b.driver.Running(); n != 0 {
		b.t.Errorf("%d VMs are left: %v", n, b.driver.Did())
	}
	if n := b.kernel.Left(); n != 0 {
		b.t.Errorf("%d bridges are left", n)
	}
	if strings.Contains(b.kernel.Rules, "zb0") {
		b.t.Error("rules are left")
	}
	for _, pattern := range []string{"vm/*", "volumes/*", "state/deployments/*", "output/*", "store/pins/*", "imaged/*"} {
		left, err := filepath.Glob(filepath.Join(b.dir, pattern))
		if err != nil || len(left) > 0 {
			b.t.Errorf("%v is left (%v)", left, err)
		}
	}
}

func (b *bench) incidents() []string {
	var out []string
	for _, i := range b.ledger.State().Incidents() {
		out = append(out, i.Incident.Kind+" "+i.Incident.Machine)
	}
	return out
}

func (b *bench) equal(what string, got, want []string) {
	b.t.Helper()
	if !slices.Equal(got, want) {
		b.t.Errorf("%s\n got %v\nwant %v", what, got, want)
	}
}
