// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/content"
	"github.com/zos-node/zos/agent/deploy"
	"github.com/zos-node/zos/agent/deploy/deploytest"
	"github.com/zos-node/zos/agent/imaged"
	"github.com/zos-node/zos/agent/network"
	"github.com/zos-node/zos/agent/record"
	"github.com/zos-node/zos/agent/wait"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/zimage"
)

// buffer is a console that several goroutines write.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if testing.Verbose() {
		fmt.Fprintf(os.Stderr, "%s", p)
	}
	return b.b.Write(p)
}

func (b *buffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.b.String(), s)
}

// host is a node with a real ledger behind real HTTP, which a test can replace.
type host struct {
	t        *testing.T
	dir      string
	log      *ledgertest.Log
	handlers [2]http.Handler
	mu       sync.Mutex
	urls     []string
	key      sign.Signer
	driver   *deploytest.Driver
	kernel   *deploytest.Kernel
	console  *buffer
	memory   int64
	voucher  sign.Envelope
	board    *wait.Board
	barred   func(*ledger.State) string

	f      *Follower
	queue  *record.Queue
	cancel context.CancelFunc
	done   chan struct{}
}

func newHost(t *testing.T, ledgers int) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "zf") // Unix sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: dir, log: ledgertest.New(t), key: ledgertest.Key(t), driver: deploytest.NewDriver(), kernel: &deploytest.Kernel{}, console: &buffer{}, memory: 4096, board: wait.NewBoard()}
	h.voucher = h.log.Voucher("v1", 5, map[string]string{})
	for i := range ledgers {
		h.handlers[i] = h.log.Handler()
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.mu.Lock()
			handler := h.handlers[i]
			h.mu.Unlock()
			handler.ServeHTTP(w, r)
		}))
		t.Cleanup(s.Close)
		h.urls = append(h.urls, s.URL)
	}
	t.Cleanup(func() {
		h.halt()
		h.driver.EndAll()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *host) serve(i int, handler http.Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handlers[i] = handler
}

// away is a ledger that cannot be used.
func away() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
}

// boot starts an agent on the node.
func (h *host) boot() {
	h.t.Helper()
	log := slog.New(h.board.Handler(slog.NewTextHandler(h.console, nil)))
	led, err := NewLedger(clock.System{}, filepath.Join(h.dir, "acted"))
	if err != nil {
		h.t.Fatal(err)
	}
	if err := led.Open(ledger.ClientConfig{Root: h.log.RootEnv, Ledgers: h.urls, StateFile: filepath.Join(h.dir, "checkpoint")}); err != nil {
		h.t.Fatal(err)
	}
	h.queue, err = record.Open(record.Config{Dir: filepath.Join(h.dir, "records"), Ledger: led, Signer: h.key, Clock: clock.System{}, Log: log, Moved: func() {}})
	if err != nil {
		h.t.Fatal(err)
	}
	fetcher := &deploytest.Fetcher{Manifests: map[string]zimage.Manifest{ledgertest.Digest("image"): {Format: zimage.Format, DataSize: 40960, DiskSize: 45056,
		OCI:    zimage.OCI{Manifest: ledgertest.Digest("oci"), Platform: "linux/amd64", Config: ledgertest.Digest("config")},
		Verity: zimage.Verity{Root: strings.TrimPrefix(ledgertest.Digest("verity"), "sha256:"), HashStart: 10},
		Chunks: []zimage.Chunk{{ID: strings.TrimPrefix(ledgertest.Digest("chunk"), "sha256:"), Size: 45056}}}}}
	store, err := content.Open(content.Config{Dir: filepath.Join(h.dir, "store"), Fetch: fetcher, Check: deploytest.Check, Clock: clock.System{}, Log: log,
		Space: func(string) (content.Space, error) { return content.Space{FreeMiB: 10000, QuotaMiB: 10000}, nil }, Found: func(x content.Finding) error { return h.f.Wrong(x) }})
	if err != nil {
		h.t.Fatal(err)
	}
	manager := network.NewManager(h.kernel)
	if err := errors.Join(manager.Base(), manager.SetUplink("eth0", []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")})); err != nil {
		h.t.Fatal(err)
	}
	hyper := ledger.Hypervisor{Name: "qemu", Version: "10", Digest: ledgertest.Digest("qemu"), Source: "debian"}
	world := &deploy.World{Node: h.key.KeyID(), Signer: h.key, Ledger: led, Records: h.queue, Content: store, Images: imaged.NewImages(store, log), Driver: h.driver, Hypervisor: hyper, Network: manager,
		Clock: clock.System{}, Log: log, RunDir: h.dir, Cgroups: filepath.Join(h.dir, "cgroup"), Resources: func() (int64, error) { return h.memory, nil }}
	ctx, cancel := context.WithCancel(context.Background())
	h.f = New(ctx, Config{Ledger: led, World: world, Name: "n1", Voucher: h.voucher, VoucherSigner: h.log.Keys["voucher"], Image: "test", Clock: clock.System{}, Log: log, Every: 50 * time.Millisecond,
		Capacity: func() (ledger.Capacity, error) {
			return ledger.Capacity{Arch: "amd64", VCPUs: 4, MemoryMiB: h.memory, StorageMiB: 1000, Hypervisor: hyper, Addresses: []string{"192.0.2.1"}, Boot: ledgertest.Boot()}, nil
		}, LedgerTime: func(time.Time) {}, Moved: func() {}, Barred: h.barred})
	h.cancel, h.done = cancel, make(chan struct{})
	if err := h.f.Adopt(); err != nil {
		h.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { h.queue.Run(ctx) })
	wg.Go(func() {
		if err := h.f.Run(ctx); err != nil {
			h.t.Error(err)
		}
	})
	go func() { wg.Wait(); h.f.Wait(); close(h.done) }()
}

func (h *host) halt() {
	if h.cancel != nil {
		h.cancel()
		<-h.done
		h.cancel = nil
	}
}

func (h *host) until(what string, ok func(*ledger.State) bool) {
	h.t.Helper()
	limit := time.Now().Add(60 * time.Second)
	for !ok(h.log.State()) {
		if time.Now().After(limit) {
			h.t.Fatalf("never: %s\n%s", what, h.console.b.String())
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (h *host) status(id int64, want string) {
	h.t.Helper()
	h.until("status "+want, func(s *ledger.State) bool { return s.Status(s.Deployment(id)) == want })
}

func (h *host) incident(kind string) bool {
	return slices.ContainsFunc(h.log.State().Incidents(), func(i ledger.Reported) bool { return i.Incident.Kind == kind })
}

func TestFromEnrolmentToStop(t *testing.T) {
	h := newHost(t, 1)
	h.boot()
	h.until("capacity", func(s *ledger.State) bool {
		n := s.Node(h.key.KeyID())
		return n != nil && n.Capacity != nil && n.Capacity.MemoryMiB == 4096
	})
	id := h.log.Must(h.log.Register("shop", 1, nil))
	h.status(id, ledger.Running)
	large := h.log.Must(h.log.Register("large", 1, func(d *spec.Deployment) { d.Machines[0].MemoryMiB = 100_000; d.Gateways = nil }))
	h.until("a reason on the console", func(*ledger.State) bool {
		return h.console.count("needs 100000 MiB memory") == 1 && h.console.count("following the ledger") == 1
	})
	// An update replaces, on the same node, with the same network and port.
	two := h.log.Must(h.log.Register("shop", 2, nil))
	h.status(id, ledger.Replaced)
	h.status(two, ledger.Running)
	h.log.Must(h.log.Sign(ledger.TypeStop, ledger.Stop{Deployment: two, Name: "shop", Reason: "enough"}, "author"))
	h.status(two, ledger.Stopped)
	s := h.log.State()
	if n := s.Node(h.key.KeyID()); n.Used.MemoryMiB != 0 || len(s.Claims(large)) != 0 {
		t.Errorf("used %+v, %d claims of the large one", n.Used, len(s.Claims(large)))
	}
	if h.driver.Running() != 0 || h.kernel.Left() != 0 {
		t.Errorf("%d VMs, %d bridges are left", h.driver.Running(), h.kernel.Left())
	}
	h.fits("shop")
	h.fits("large")
}

// TestBarred: a node that must not take work says why and takes none; what it
// has it keeps, and once the bar is gone it takes what there is.
func TestBarred(t *testing.T) {
	h := newHost(t, 1)
	h.barred = func(s *ledger.State) string {
		if f := s.Floor(); f == "1.1" {
			return "the floor is " + f
		}
		return ""
	}
	h.boot()
	first := h.log.Must(h.log.Register("first", 1, nil))
	h.status(first, ledger.Running)
	roll := func(version string) {
		p := h.log.Rollout(h.log.Must(h.log.NodeRelease(version, "a")), version)
		p.Floor = version
		h.log.Must(h.log.Sign(ledger.TypeRollout, p, "release"))
	}
	roll("1.1")
	second := h.log.Must(h.log.Register("second", 1, func(d *spec.Deployment) {
		d.Gateways, d.Networks[0].Subnet, d.Machines[0].Interfaces[0].Address = nil, "10.43.0.0/24", "10.43.0.2"
	}))
	h.until("a reason on the console", func(*ledger.State) bool { return h.console.count("the floor is 1.1") > 0 })
	if s := h.log.State(); s.Status(s.Deployment(first)) != ledger.Running || len(s.Claims(second)) != 0 {
		t.Errorf("first is %s, second has %d claims", s.Status(s.Deployment(first)), len(s.Claims(second)))
	}
	roll("1.2")
	h.status(second, ledger.Running)
}

// TestNothingIsKeptOfWhatIsOver: a node lives for years in memory alone.
func TestNothingIsKeptOfWhatIsOver(t *testing.T) {
	h := newHost(t, 1)
	h.boot()
	chains := func() int {
		left, err := filepath.Glob(filepath.Join(h.dir, "records", "chain-*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(left) + len(h.queue.Claims())
	}
	// Neither can be claimed: one is too large, the other's network is taken.
	large := h.log.Must(h.log.Register("large", 1, func(d *spec.Deployment) { d.Machines[0].MemoryMiB = 100_000; d.Gateways = nil }))
	for version := range int64(3) {
		id := h.log.Must(h.log.Register("shop", version+1, nil))
		h.status(id, ledger.Running)
		if chains() == 0 {
			t.Fatal("nothing is kept of what runs")
		}
		if version == 0 {
			taken := h.log.Must(h.log.Register("taken", 1, func(d *spec.Deployment) { d.Gateways = nil }))
			h.until("tried", func(*ledger.State) bool {
				return h.console.count("overlaps 10.42.0.0/24") > 0 && h.console.count("needs 100000 MiB") > 0
			})
			h.log.Must(h.log.Sign(ledger.TypeStop, ledger.Stop{Deployment: taken, Name: "taken", Reason: "enough"}, "author"))
			h.log.Must(h.log.Sign(ledger.TypeStop, ledger.Stop{Deployment: large, Name: "large", Reason: "enough"}, "author"))
		}
		if version == 2 {
			h.log.Must(h.log.Sign(ledger.TypeStop, ledger.Stop{Deployment: id, Name: "shop", Reason: "enough"}, "author"))
			h.status(id, ledger.Stopped)
		}
	}
	h.until("all is forgotten", func(*ledger.State) bool { return chains() == 0 })
	h.halt() // the loop's own maps
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if n := len(h.f.said) + len(h.f.tryAt) + len(h.f.tries) + len(h.f.closeAt) + len(h.f.lives); n != 0 {
		t.Errorf("%d are kept: %v %v %v %v", n, h.f.said, h.f.tryAt, h.f.tries, h.f.closeAt)
	}
}

func TestTwoDeploymentsWithOneSubnet(t *testing.T) {
	h := newHost(t, 1)
	h.boot()
	one := h.log.Must(h.log.Register("one", 1, nil))
	h.status(one, ledger.Running)
	two := h.log.Must(h.log.Register("two", 1, func(d *spec.Deployment) { d.Gateways = nil }))
	h.until("the conflict on the console", func(*ledger.State) bool { return h.console.count("overlaps 10.42.0.0/24") > 0 })
	if n := len(h.log.State().Claims(two)); n != 0 {
		t.Errorf("claimed %d times", n)
	}
	other := h.log.Must(h.log.Register("three", 1, func(d *spec.Deployment) {
		d.Gateways = nil
		d.Networks[0].Subnet, d.Machines[0].Interfaces[0].Address = "10.43.0.0/24", "10.43.0.2"
	}))
	h.status(other, ledger.Running)
}

func TestLyingLedgers(t *testing.T) {
	for name, c := range map[string]struct {
		kind string
		lie  func(h *host, good *ledgertest.Log, fork *ledgertest.Log) http.Handler
	}{
		"forged": {checkpointForged, func(h *host, _, _ *ledgertest.Log) http.Handler { return ledgertest.New(h.t).Handler() }},
		"rolled back": {checkpointRollback, func(h *host, _, fork *ledgertest.Log) http.Handler {
			return fork.Handler() // the same history, but it ends before what was seen
		}},
		"forked": {checkpointFork, func(h *host, good, fork *ledgertest.Log) http.Handler {
			for i := range 20 {
				fork.Must(fork.Register(fmt.Sprintf("other%d", i), 1, nil))
			}
			return fork.Handler()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, 1)
			fork := h.log.Fork()
			h.boot()
			id := h.log.Must(h.log.Register("shop", 1, nil))
			h.status(id, ledger.Running)
			h.serve(0, c.lie(h, h.log, fork))
			h.until("the lie on the console", func(*ledger.State) bool { return h.console.count(`msg="ledger refused"`) > 0 })
			if h.driver.Running() != 1 {
				t.Error("what ran does not run on")
			}
			if h.incident(c.kind) {
				t.Error("reported to a liar")
			}
			h.serve(0, h.log.Handler())
			h.until("the incident", func(*ledger.State) bool { return h.incident(c.kind) })
			if n := h.console.count(`msg="ledger refused"`); n > 3 {
				t.Errorf("said %d times", n)
			}
			if h.driver.Running() != 1 || h.console.count("following the ledger") != 2 {
				t.Errorf("%d VMs, followed %d times", h.driver.Running(), h.console.count("following the ledger"))
			}
		})
	}
}

func TestOneOfTwoLedgersLies(t *testing.T) {
	h := newHost(t, 2)
	h.boot()
	id := h.log.Must(h.log.Register("shop", 1, nil))
	h.status(id, ledger.Running)
	h.serve(0, ledgertest.New(t).Handler())
	h.until("the incident", func(*ledger.State) bool { return h.incident(checkpointForged) })
	h.log.Must(h.log.Sign(ledger.TypeStop, ledger.Stop{Deployment: id, Name: "shop", Reason: "enough"}, "author"))
	h.status(id, ledger.Stopped)
}

func TestLedgerAwayAtBoot(t *testing.T) {
	h := newHost(t, 1)
	h.serve(0, away())
	h.boot()
	h.until("the wait on the console", func(*ledger.State) bool { return h.console.count("waiting for a good ledger") > 0 })
	h.serve(0, h.log.Handler())
	h.until("enrolled", func(s *ledger.State) bool { return s.Node(h.key.KeyID()) != nil })
}

func TestAgentDiesAndAdopts(t *testing.T) {
	h := newHost(t, 1)
	h.boot()
	id := h.log.Must(h.log.Register("shop", 1, nil))
	h.status(id, ledger.Running)
	h.halt()
	h.boot()
	h.until("adopted", func(*ledger.State) bool { return h.console.count("msg=\"deployment adopted\"") == 1 })
	if h.driver.Starts["web"] != 1 || h.console.count(`msg=enrolled`) != 1 {
		t.Errorf("started %d times, enrolled %d times", h.driver.Starts["web"], h.console.count(`msg=enrolled`))
	}
}

// claimedBehindIt is a node without an agent, and a deployment that it has claimed
// without that agent's knowledge.
func claimedBehindIt(t *testing.T) (h *host, id, claim int64) {
	t.Helper()
	h = newHost(t, 1)
	h.boot()
	h.until("capacity", func(s *ledger.State) bool { n := s.Node(h.key.KeyID()); return n != nil && n.Capacity != nil })
	h.halt()
	id = h.log.Must(h.log.Register("shop", 1, nil))
	raw, err := ledger.NewEntry(ledger.TypeClaim, ledger.Claim{Deployment: id, Attempt: 0, Acted: h.log.Acted()}, h.key)
	if err != nil {
		t.Fatal(err)
	}
	return h, id, h.log.Must(raw)
}

func TestClaimOfAnAgentThatDiedBehindIt(t *testing.T) {
	h, id, _ := claimedBehindIt(t)
	h.boot()
	h.status(id, ledger.Running)
	if n := len(h.log.State().Claims(id)); n != 1 {
		t.Errorf("%d claims", n)
	}
	h.fits("shop")
}

func TestStateWasLost(t *testing.T) {
	h := newHost(t, 1)
	h.boot()
	id := h.log.Must(h.log.Register("shop", 1, nil))
	h.status(id, ledger.Running)
	h.halt()
	for _, d := range []string{"state", "records", "vm"} {
		if err := os.RemoveAll(filepath.Join(h.dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	h.driver.EndAll()
	h.boot()
	h.until("closed", func(s *ledger.State) bool { return s.Claims(id)[0].Closed() })
	if g := h.log.State().Claims(id)[0]; g.State != ledger.GrantReleased {
		t.Errorf("claim %+v", g)
	}
	h.fits("shop")
}
