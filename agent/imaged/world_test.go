// SPDX-License-Identifier: Apache-2.0

package imaged

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/imaged/serve"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/proc"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
	"github.com/zos-node/zos/zimage/zimagetest"
)

// asServer has this program be a server.
const asServer = "-as-image-server"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == asServer {
		os.Exit(serve.Main())
	}
	os.Exit(m.Run())
}

// process is a server without cgroup and Landlock, which this machine may not
// have: only its own uid and what it does to itself hold it.
type process struct {
	cmd    *exec.Cmd
	booted chan struct{}
	done   chan struct{}
	events chan vm.Event
}

func start(_ context.Context, s proc.Spec) (Process, error) {
	if err := os.Truncate(filepath.Join(s.Dir, proc.EventsFile), 0); err != nil { // as proc does
		return nil, err
	}
	dev, err := s.Prepare()
	if err != nil {
		return nil, err
	}
	defer dev.Close() // the server has its own
	p := &process{cmd: exec.Command("/proc/self/exe", asServer), booted: make(chan struct{}), done: make(chan struct{}), events: make(chan vm.Event, 8)}
	p.cmd.ExtraFiles = append([]*os.File{dev}, s.Files...)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.User, Gid: s.User}, Pdeathsig: unix.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan string, 1)
	go func() {
		err := p.cmd.Wait()
		how := "exit status 0"
		if err != nil {
			how = err.Error()
		}
		ended <- how
	}()
	go p.follow(filepath.Join(s.Dir, proc.EventsFile), s.Parse, ended)
	return p, nil
}

// follow hands on the events as proc's watcher does.
func (p *process) follow(name string, parse proc.ParseFunc, ended <-chan string) {
	var off int64
	for how := ""; ; {
		b, err := os.ReadFile(name)
		if err != nil {
			b = nil // removed by Kill
		}
		for end := int64(bytes.LastIndexByte(b, '\n') + 1); off < end; {
			line, _, _ := bytes.Cut(b[off:], []byte("\n"))
			off += int64(len(line)) + 1
			parsed, err := parse(line, time.Now())
			if err != nil {
				panic(err)
			}
			if parsed.Booted {
				close(p.booted)
			}
			if parsed.Event.Kind != "" {
				p.events <- parsed.Event
			}
		}
		if how != "" {
			close(p.done)
			p.events <- vm.Event{Kind: vm.EventExit, Detail: how}
			close(p.events)
			return
		}
		select {
		case how = <-ended:
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (p *process) Booted(ctx context.Context) error {
	select {
	case <-p.booted:
		return nil
	case <-p.done:
		return errors.New("it ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}
func (p *process) Events() <-chan vm.Event { return p.events }
func (p *process) Done() <-chan struct{}   { return p.done }
func (p *process) LogTail() string         { return "" }
func (p *process) Kill(context.Context) error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// Hardening is what the process does to itself, and its uid.
func (p *process) Hardening() (map[string]string, error) {
	b, err := os.ReadFile(filepath.Join("/proc", fmtPID(p.cmd.Process.Pid), "status"))
	if err != nil {
		return nil, err
	}
	h := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			h[key] = strings.TrimSpace(value)
		}
	}
	return h, nil
}

func fmtPID(pid int) string { b, _ := json.Marshal(pid); return string(b) } // a number has no error

// origin is an image on a mirror that can be slow, or lie.
type origin struct {
	m    zimage.Manifest
	id   string
	disk []byte
	url  string

	mu    sync.Mutex
	gate  chan struct{} // while set, chunks beyond free wait for it
	free  map[string]bool
	lie   map[string]int // how often a chunk is sent wrong
	asked []string
	pack  http.HandlerFunc // answers for a start pack; nil: there is none
	store *zimage.Store
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	if err := Available(); err != nil {
		t.Skipf("SKIP: %v", err)
	}
	store, err := zimage.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{store: store, free: map[string]bool{}, lie: map[string]int{}}
	if o.m, o.id, err = zimage.Convert(t.Context(), zimagetest.Image(t, map[string]int{"a": 12 << 20, "b": 70000, "c": 100}), "linux/amd64", store, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range o.m.Chunks {
		b, err := store.Chunk(c)
		if err != nil {
			t.Fatal(err)
		}
		o.disk = append(o.disk, b...)
	}
	next := zimage.Handler(store)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimSuffix(filepath.Base(r.URL.Path), ".zst")
		isChunk := strings.HasPrefix(r.URL.Path, "/chunks/")
		o.mu.Lock()
		if isChunk {
			o.asked = append(o.asked, name)
		}
		if pack := o.pack; pack != nil && strings.HasPrefix(r.URL.Path, "/starts/") {
			o.mu.Unlock()
			pack(w, r)
			return
		}
		gate, lie := o.gate, o.lie[name] > 0
		o.lie[name]--
		if o.free[name] {
			gate = nil
		}
		o.mu.Unlock()
		if isChunk && gate != nil {
			select {
			case <-gate:
			case <-r.Context().Done():
				return
			}
		}
		if lie {
			io.WriteString(w, "a lie") // whoever asked may be gone
			return
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(o.open) // before the server waits for its requests
	o.url = srv.URL
	return o
}

// shut holds back all chunks but those.
func (o *origin) shut(but ...int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gate = make(chan struct{})
	for _, i := range but {
		o.free[o.m.Chunks[i].ID] = true
	}
}

func (o *origin) open() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gate != nil {
		close(o.gate)
		o.gate = nil
	}
}

// head are the chunks without which no guest starts.
func (o *origin) head() []int {
	all := []int{0}
	for i := o.last() + 1; i < len(o.m.Chunks); i++ {
		all = append(all, i)
	}
	return all
}

// last is the chunk before the tree and what comes with that.
func (o *origin) last() int {
	const cluster = 256 << 10 // of dm-verity
	return slices.IndexFunc(o.m.Chunks, func(c zimage.Chunk) bool { return c.Off+c.Size > o.m.DataSize/cluster*cluster }) - 1
}

// blocks are those of some chunks.
func (o *origin) blocks(chunks ...int) (l extent.List) {
	for _, i := range chunks {
		l = append(l, extent.Extent{First: o.m.Chunks[i].Off / extent.BlockSize, Blocks: o.m.Chunks[i].Size / extent.BlockSize})
	}
	return l
}

func launcher(t *testing.T, o *origin, deadline time.Duration) *Launcher {
	t.Helper()
	return &Launcher{Dir: t.TempDir(), Program: "/proc/self/exe", Mirrors: []string{o.url}, Deadline: deadline, Log: slog.New(slog.DiscardHandler), Start: start}
}

const patience = 2 * time.Minute // of a slow machine

func serveAt(t *testing.T, l *Launcher, o *origin, store string, trace extent.List) (s *Served, path string) {
	t.Helper()
	return serveWith(t, l, o, store, trace, Near{})
}

// serveNear serves with another image beside it.
func serveNear(t *testing.T, l *Launcher, o *origin, store string, near Near) (s *Served, path string) {
	t.Helper()
	return serveWith(t, l, o, store, nil, near)
}

func serveWith(t *testing.T, l *Launcher, o *origin, store string, trace extent.List, near Near) (s *Served, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := l.ServeBeside(ctx, o.m, o.id, store, trace, near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Kill(context.Background()); err != nil {
			t.Error(err)
		}
		if on, err := mounted(s.Path()); on || err != nil {
			t.Errorf("the mount is left: %v", err)
		}
	})
	if err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return s, s.Path()
}

func within(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("waited for %s in vain", what)
	}
}
