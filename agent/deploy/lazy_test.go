// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/imaged"
	"github.com/zos-node/zos/agent/imaged/serve"
	"github.com/zos-node/zos/agent/imaged/trace"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/proc"
	"github.com/zos-node/zos/guest/wire"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
)

// servers are image servers that are nothing but what they say. They outlive
// agents, as the real ones do.
type servers struct {
	mu  sync.Mutex
	all map[string]*server // by folder
	n   int
}

type server struct {
	events chan vm.Event
	done   chan struct{}
	once   sync.Once
}

func (s *server) Booted(context.Context) error          { return nil }
func (s *server) Events() <-chan vm.Event               { return s.events }
func (s *server) Done() <-chan struct{}                 { return s.done }
func (s *server) Hardening() (map[string]string, error) { return nil, nil }
func (s *server) LogTail() string                       { return "" }
func (s *server) Kill(context.Context) error            { s.end("killed by SIGKILL"); return nil }
func (s *server) say(event, detail string) {
	s.events <- vm.Event{Kind: vm.EventKind(event), Detail: detail}
}
func (f *servers) start(_ context.Context, p proc.Spec) (imaged.Process, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &server{events: make(chan vm.Event, 8), done: make(chan struct{})}
	f.all[p.Dir] = s
	f.n++
	if _, err := p.Parse([]byte(`{"event":"progress","read":[{"first":0,"blocks":1}]}`), time.Now()); err != nil {
		return nil, err
	}
	return s, nil
}

func (f *servers) adopt(dir string, _ proc.ParseFunc) (imaged.Process, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.all[dir]
	if s == nil {
		return nil, os.ErrNotExist
	}
	again := &server{events: make(chan vm.Event, 8), done: s.done}
	f.all[dir] = again
	return again, nil
}

// end is the end of the process.
func (s *server) end(how string) {
	s.once.Do(func() {
		close(s.done)
		s.events <- vm.Event{Kind: vm.EventExit, Detail: how}
		close(s.events)
	})
}

// last is the server that was started last, and how many there were.
func (f *servers) last() (*server, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.all {
		return s, f.n // the tests have one image
	}
	return nil, f.n
}

// lazily has the bench's image served.
func (b *bench) lazily(f *servers) {
	b.t.Helper()
	l := &imaged.Launcher{Dir: filepath.Join(b.dir, imaged.Name), Program: "/none", Deadline: time.Minute, Log: slog.New(slog.DiscardHandler), Start: f.start, Adopt: f.adopt}
	if err := b.world.Images.Lazy(context.Background(), l, 1); err != nil {
		b.t.Fatal(err)
	}
}

func restarts(d *spec.Deployment) {
	d.Machines[0].Failure = spec.Failure{Action: "restart", MaxRestarts: 3, BackoffMs: 1}
}

func newLazyBench(t *testing.T, edit func(*spec.Deployment)) (*bench, *servers, *ledger.Deployment) {
	t.Helper()
	b := newBench(t)
	f := &servers{all: map[string]*server{}}
	b.lazily(f)
	return b, f, b.register(edit)
}

// started is where the running VM of the test got its disk from.
func (b *bench) started() string {
	b.t.Helper()
	s, err := States(b.dir)
	if err != nil || len(s) != 1 {
		b.t.Fatal(s, err)
	}
	return s[0].Plan.Machines[0].VM.Disks[0].Path
}

// arriving says whether the running guest was told that its image is arriving.
func (b *bench) arriving() bool {
	b.t.Helper()
	s, err := States(b.dir)
	if err != nil || len(s) != 1 {
		b.t.Fatal(s, err)
	}
	return strings.HasSuffix(s[0].Plan.Machines[0].VM.Cmdline, " "+wire.Arriving)
}

func (b *bench) untilAgain(g *ledger.Grant, key string) {
	b.t.Helper()
	b.until("running again with "+key, func(s *ledger.State) bool {
		r := s.Records(g.Index)
		return strings.Contains(r[len(r)-1].Record.Detail, "ssh-ed25519 "+key)
	})
}

// TestLazyThenWhole: a guest starts from a disk that is served; when the image
// is whole, its next start is from the file.
func TestLazyThenWhole(t *testing.T) {
	b, f, d := newLazyBench(t, restarts)
	end := run(New(b.world, d, -1, 0))
	g := b.untilRunning(d)
	served, file := filepath.Join(b.dir, imaged.Name), b.world.Content.ImagePath(ledgertest.Digest("image"))
	if at := b.started(); !strings.HasPrefix(at, served) {
		t.Errorf("started from %s", at)
	}
	if !b.arriving() {
		t.Error("the guest does not know that its image is arriving")
	}
	if r := b.ledger.State().Records(g.Index)[phase.Index(phase.FetchContent)].Record.Detail; !strings.Contains(r, "is served while it arrives") {
		t.Errorf("fetch-content says %q", r)
	}
	// What the start read is known to whoever reads the ledger.
	if s := trace.Last(b.ledger.State(), ledgertest.Digest("image"), b.fetcher.Manifests[ledgertest.Digest("image")]); s == nil || s.Machine != "web" || s.Claim != g.Index || !s.Exact() || len(s.Blocks) != 1 {
		t.Errorf("trace %+v", s)
	}
	s, _ := f.last()
	s.say(serve.Whole, "")
	b.poll("the image has its name", func() bool { _, err := os.Stat(file); return err == nil })
	select {
	case <-s.Done():
		t.Error("the server was ended under a running guest")
	default:
	}
	b.driver.Find("web").End("died")
	s.end("exit status 0") // its last reader is gone
	b.untilAgain(g, "web-2")
	if b.arriving() {
		t.Error("the guest takes an image that is here for one that is arriving")
	}
	if at := b.started(); at != file {
		t.Errorf("started again from %s", at)
	}
	if _, n := f.last(); n != 1 {
		t.Errorf("%d servers were started", n)
	}
	b.ledger.must(b.ledger.Sign(ledger.TypeStop, ledger.Stop{Deployment: d.ID, Name: "shop", Reason: "enough"}, "author"))
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.clean()
}

// TestServerDies: a machine whose image's server dies is started again as its
// rule says, and that is recorded, in whichever order things are heard.
func TestServerDies(t *testing.T) {
	for name, panics := range map[string]bool{"heard first": false, "the guest panics first": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, f, d := newLazyBench(t, restarts)
			end := run(New(b.world, d, -1, 0))
			g := b.untilRunning(d)
			s, _ := f.last()
			if panics {
				b.driver.Find("web").Emit(vm.EventPanic)
			}
			s.end("killed by SIGKILL")
			b.untilAgain(g, "web-2")
			b.drained()
			b.equal("incidents", b.incidents(), []string{IncidentRestart + " web"})
			if i := b.ledger.State().Incidents()[0].Incident.Detail; !strings.Contains(i, IncidentServer) {
				t.Errorf("incident %q", i)
			}
			if _, n := f.last(); n != 2 {
				t.Errorf("%d servers were started", n)
			}
			b.ledger.must(b.ledger.Sign(ledger.TypeStop, ledger.Stop{Deployment: d.ID, Name: "shop", Reason: "enough"}, "author"))
			if err := b.wait(end); err != nil {
				t.Fatal(err)
			}
			b.clean()
		})
	}
}

// TestServerDiesWithoutRule: what may not be started again ends.
func TestServerDiesWithoutRule(t *testing.T) {
	b, f, d := newLazyBench(t, nil)
	end := run(New(b.world, d, -1, 0))
	g := b.untilRunning(d)
	s, _ := f.last()
	s.end("killed by SIGKILL")
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.drained()
	b.equal("incidents", b.incidents(), []string{IncidentServer + " web"})
	if c := b.ledger.State().Claim(g.Index); c.CloseResult != "failed" || !strings.Contains(c.CloseReason, "the server of the image died") {
		t.Errorf("claim %+v", c)
	}
	b.clean()
}

// TestImageDoesNotArrive: a deployment whose image stays away ends with a
// record, whatever its rule says, and its claim is given back.
func TestImageDoesNotArrive(t *testing.T) {
	b, f, d := newLazyBench(t, restarts)
	end := run(New(b.world, d, -1, 0))
	g := b.untilRunning(d)
	s, _ := f.last()
	s.say(serve.Failed, "waited 2m0s for bytes 0 to 4096")
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.drained()
	b.equal("incidents", b.incidents(), []string{IncidentUnavailable + " web"})
	if c := b.ledger.State().Claim(g.Index); c.State != ledger.GrantReleased || !strings.Contains(c.CloseReason, "waited 2m0s for bytes 0 to 4096") {
		t.Errorf("claim %+v", c)
	}
	b.clean()
}

// TestPanicOnServedDisk: a guest that finds its disk wrong while that arrives
// is not started again, and what had arrived is put aside.
func TestPanicOnServedDisk(t *testing.T) {
	b, _, d := newLazyBench(t, restarts)
	end := run(New(b.world, d, -1, 0))
	b.untilRunning(d)
	b.driver.Find("web").Emit(vm.EventPanic)
	if err := b.wait(end); err != nil {
		t.Fatal(err)
	}
	b.drained()
	b.equal("incidents", b.incidents(), []string{IncidentPanic + " web"})
	if kept, err := filepath.Glob(b.dir + "/store/quarantine/*.part"); err != nil || len(kept) != 1 {
		t.Errorf("quarantine %v %v", kept, err)
	}
	b.clean()
}

// TestServerIsAdopted: the next agent hears of a server that dies, also when
// it died while there was no agent.
func TestServerIsAdopted(t *testing.T) {
	for name, before := range map[string]bool{"dies later": false, "had died": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, f, d := newLazyBench(t, restarts)
			ctx, cancel := context.WithCancel(context.Background())
			end := make(chan error, 1)
			l := New(b.world, d, -1, 0)
			go func() { end <- l.Run(ctx) }()
			g := b.untilRunning(d)
			b.drained()
			cancel()
			if err := b.wait(end); err != nil {
				t.Fatal(err)
			}
			b.boot()
			b.lazily(f)
			s, _ := f.last()
			if before {
				s.end("was gone when it was adopted")
			}
			states, err := States(b.dir)
			if err != nil || len(states) != 1 {
				t.Fatal(states, err)
			}
			again := Resume(b.world, states[0])
			over := runAgain(again)
			if !before {
				s.end("ended (not our child, no exit status)")
			}
			b.untilAgain(g, "web-2")
			b.drained()
			b.equal("incidents", b.incidents(), []string{IncidentRestart + " web"})
			again.End(&Ending{Result: "failed", Reason: "end of the test", Kill: true})
			if err := b.wait(over); err != nil {
				t.Fatal(err)
			}
			b.clean()
		})
	}
}
