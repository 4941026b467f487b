// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/lazy"
)

const (
	memoryLimit = 48 << 20 // what the garbage collector aims at
	// ahead is how many chunks that nobody waits for are fetched at once: what
	// somebody waits for shares the line with them.
	ahead = 8
	// calm is how long nothing new must have been read before the rest is fetched: a
	// program that starts reads, and then works on what it has read.
	calm = time.Second
	// tellEvery is between two looks at what is to be said and saved.
	tellEvery = 500 * time.Millisecond
	// kernelAhead is what this kernel may read that nobody asked for, in bytes: as
	// little as it can. A guest's kernel reads ahead by itself, and what would be
	// read here on top of that would be waited for, and stand in the trace.
	kernelAhead  = 4096
	replyTimeout = 15 * time.Second
	maxRead      = 1000 // runs of blocks of one event
)

// Main is the process. It returns its exit status.
func Main() int {
	debug.SetMemoryLimit(memoryLimit)
	p := &process{events: os.NewFile(EventsFD, "events"), told: map[string]bool{}}
	if err := p.run(); err != nil {
		fmt.Fprintln(os.Stderr, "imaged:", err)
		return 1
	}
	return 0
}

type process struct {
	cfg    Config
	events *os.File
	have   *os.File
	write  *os.File
	disk   *lazy.Disk
	fetch  *zimage.Fetcher
	lent   *lent
	ahead  *readAhead
	wire   atomic.Int64

	mu      sync.Mutex
	head    map[int]bool // what is to come before a guest may start
	ready   bool         // a guest may start: that was told
	bits    []bool
	written bool // bits are in the file
	told    map[string]bool
	read    int64 // how much of the trace was told, in blocks
	missing int   // the last that was told
}

func (p *process) run() error {
	// Nobody of the same uid may look into it.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("not dumpable: %w", err)
	}
	if err := filter(); err != nil {
		return err
	}
	text, err := io.ReadAll(os.NewFile(ConfigFD, "config"))
	if err == nil {
		err = json.Unmarshal(text, &p.cfg)
	}
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	m := p.cfg.Manifest
	p.have, p.write = os.NewFile(HaveFD, "have"), os.NewFile(DiskFD, "disk")
	read := os.NewFile(ReadFD, "disk")
	said, err := io.ReadAll(io.LimitReader(p.have, int64(len(m.Chunks))))
	if err != nil {
		return fmt.Errorf("what is there already: %w", err)
	}
	p.bits = zimage.CheckHave(read, m, said)
	if p.lent, err = newLent(p.cfg); err != nil {
		return err
	}
	if p.ahead, err = newReadAhead(); err != nil {
		return err
	}
	if p.disk, err = p.open(read); err != nil {
		return err
	}
	root := &rootFile{RawFileSystem: fuse.NewDefaultRawFileSystem(), disk: p.disk, fd: read.Fd()}
	// Splicing would need to open /dev/null.
	srv, err := fuse.NewServer(root, fmt.Sprintf("/dev/fd/%d", FuseFD), &fuse.MountOptions{MaxWrite: MaxRead, MaxReadAhead: kernelAhead, DisableXAttrs: true, DisableSplice: true, ExplicitDataCacheControl: true,
		Logger: log.New(os.Stderr, "fuse: ", 0)})
	if err != nil {
		return fmt.Errorf("file system: %w", err)
	}
	over := make(chan struct{})
	go func() {
		srv.Serve()
		close(over)
	}()
	err = p.work(over)
	p.disk.Close()
	return errors.Join(err, p.save())
}

// both reads with one file and writes with the other.
type both struct {
	io.ReaderAt
	io.WriterAt
}

func (p *process) open(read *os.File) (*lazy.Disk, error) {
	p.fetch = &zimage.Fetcher{Mirrors: p.cfg.Mirrors, HTTP: &http.Client{Transport: p.transport()}, Report: p.report}
	get, err := p.fetch.Chunks()
	if err != nil {
		return nil, err
	}
	plan := newPlan(p.cfg.Manifest)
	p.head = map[int]bool{}
	for _, i := range plan.head() {
		if !p.bits[i] {
			p.head[i] = true
		}
	}
	order, first := plan.order(p.cfg.Trace)
	return lazy.New(p.cfg.Manifest, both{read, p.write}, p.lent.first(p.refusing(get)), lazy.Options{Deadline: time.Duration(p.cfg.DeadlineMs) * time.Millisecond,
		Have: slices.Clone(p.bits), Trace: order, Head: first, Beside: plan.beside, Calm: calm, Parallel: ahead, Arrived: p.arrived, Next: p.ahead.want})
}

// refusing fails the disk at once when, before a guest may start, every mirror
// has a chunk wrong or not at all: there is no reason to wait for a start that
// nobody can bring about. Later a read waits for mirrors that change.
func (p *process) refusing(get lazy.Get) lazy.Get {
	return func(ctx context.Context, c zimage.Chunk) ([]byte, error) {
		b, err := get(ctx, c)
		if errors.Is(err, zimage.ErrMismatch) || errors.Is(err, zimage.ErrMissing) {
			p.mu.Lock()
			i := slices.IndexFunc(p.cfg.Manifest.Chunks, func(x zimage.Chunk) bool { return x.Off == c.Off })
			needed := p.head[i]
			p.mu.Unlock()
			if needed {
				p.disk.Fail(err)
			}
		}
		return b, err
	}
}

// transport counts what mirrors send.
func (p *process) transport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	t.ResponseHeaderTimeout = replyTimeout
	t.MaxIdleConnsPerHost = 4 * ahead // a read that waits must not wait for a connection as well
	return counting{t, &p.wire}
}

type counting struct {
	http.RoundTripper
	n *atomic.Int64
}

// RoundTrip implements http.RoundTripper.
func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = countedBody{resp.Body, c.n}
	}
	return resp, err
}

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// arrived books a chunk that is in the file.
func (p *process) arrived(i int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bits[i], p.written = true, false
	if delete(p.head, i); len(p.head) == 0 {
		p.start()
	}
}

// start says once that a guest may start. p.mu is held.
func (p *process) start() {
	if !p.ready {
		p.ready, p.head = true, nil
		p.say(Event{Event: Ready, Missing: p.lacking(), Bytes: p.wire.Load()})
	}
}

// report says once that a mirror's answer was no good.
func (p *process) report(mirror, what string, err error) {
	lacks := errors.Is(err, zimage.ErrMissing)
	key := fmt.Sprint(mirror, lacks)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told[key] {
		return
	}
	p.told[key] = true
	p.say(Event{Event: Mirror, Mirror: mirror, What: what, Lacks: lacks, Detail: err.Error()})
}

// say appends an event. One that cannot be said ends the process: the agent
// would wait for it.
func (p *process) say(e Event) {
	b, err := json.Marshal(e)
	if err == nil {
		_, err = p.events.Write(append(b, '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "imaged: event:", err)
		os.Exit(1)
	}
}

// work fills the disk and tells how it goes until the file system is gone.
func (p *process) work(over <-chan struct{}) error {
	p.mu.Lock()
	if len(p.head) == 0 { // all of it was there
		p.start()
	}
	p.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	filled := make(chan error, 1)
	begun := make(chan struct{})
	go p.startPack(ctx, sync.OnceFunc(func() { close(begun) }))
	go func() {
		select {
		case <-begun:
		case <-time.After(packGrace):
		}
		filled <- p.disk.Fill(ctx)
	}()
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	failed := p.disk.Failed()
	for {
		select {
		case <-over:
			return nil
		case err := <-filled:
			if err != nil {
				continue // it has failed, which is told below
			}
			p.progress()
			p.lent.whole()
			p.ahead.end()
			if err := errors.Join(p.save(), p.write.Close()); err != nil {
				return fmt.Errorf("the whole disk: %w", err)
			}
			p.say(Event{Event: Whole, Bytes: p.wire.Load()})
		case <-failed:
			failed = nil
			p.say(Event{Event: Failed, Bytes: p.wire.Load(), Detail: p.disk.Err().Error()})
		case <-tick.C:
			p.progress()
			if err := p.save(); err != nil {
				return err
			}
		}
	}
}

// progress says what has changed.
func (p *process) progress() {
	p.mu.Lock()
	defer p.mu.Unlock()
	missing := p.lacking()
	read := p.disk.Trace(p.read)
	if missing == p.missing && len(read) == 0 {
		return
	}
	for more := true; more; more = len(read) > 0 {
		next := read[:min(len(read), maxRead)]
		p.say(Event{Event: Progress, Missing: missing, Bytes: p.wire.Load(), Read: next})
		read, p.read = read[len(next):], p.read+next.Blocks()
	}
	p.missing = missing
}

// lacking counts the chunks that are not there. p.mu is held.
func (p *process) lacking() int {
	n := 0
	for _, h := range p.bits {
		if !h {
			n++
		}
	}
	return n
}

// save writes the bits down, which spare the next process the fetching, not
// the hashing.
func (p *process) save() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.written {
		return nil
	}
	if _, err := p.have.WriteAt(zimage.PackHave(p.bits), 0); err != nil {
		return fmt.Errorf("write what is there: %w", err)
	}
	p.written = true
	return nil
}
