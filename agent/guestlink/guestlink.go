// SPDX-License-Identifier: Apache-2.0

// Package guestlink is the host's end of the line to one guest (package wire
// is the protocol). The guest dials; Link takes its connection, configures a
// fresh guest or resumes a running one, hands what the guest says to whoever
// supervises the machine, and keeps the process's output in a bounded file.
//
// A guest is not trusted: frames are bounded, a guest that comes back as
// another one (other boot id, other key) is reported and not configured again,
// and what does not follow the protocol ends the connection.
package guestlink

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/zos-node/zos/guest/wire"
)

// Identity is who the guest is. It is fixed by its first Hello.
type Identity struct {
	PublicKey string `json:"publicKey"`
	BootID    string `json:"bootID"`
	Kernel    string `json:"kernel"`
}

// Event is one thing that the guest said, or that was noticed about it.
// Exactly one of the pointers is set, or Err.
type Event struct {
	Hello   *Identity
	Report  *wire.Report
	Started *wire.Started
	Health  *wire.Health
	Exit    *wire.Exit
	Fatal   *wire.Fatal
	Silent  time.Duration // for so long nothing was heard of a guest that should speak
	Err     error         // the guest broke the protocol: it must be ended
}

// Config says how to treat the guest.
type Config struct {
	Guest wire.Config // sent to a fresh guest, with time and entropy filled in
	// Known is set when the agent adopts: the guest must be this one.
	Known   *Identity
	Started bool   // its process was told to start already
	Output  string // path of the output's file
	Now     func() time.Time
	Log     *slog.Logger
	// Silence is how long a guest whose process was told of may say nothing,
	// with its line or without; 0 means DefaultSilence.
	Silence time.Duration
}

// Link is the line to one guest.
type Link struct {
	cfg    Config
	ln     net.Listener
	events chan Event
	done   chan struct{}
	output *output

	mu      sync.Mutex
	conn    net.Conn // the present one, nil between two
	known   *Identity
	resumed bool // the present connection has had its Config or Resume
	start   bool // the process may start
	started bool
	stop    *wire.Stop
	health  *wire.Health // the last that was passed on
	speaks  bool         // it repeats its Health from here on
	heard   bool         // something, since silence looked last
	closed  bool
}

const (
	helloTimeout = 10 * time.Second
	writeTimeout = 10 * time.Second
	entropyLen   = 32
	eventBuffer  = 16
)

// DefaultSilence is six times wire.HealthEvery.
const DefaultSilence = 6 * wire.HealthEvery

// silenceParts is how many looks in a row must find nothing. An agent that was
// itself asleep for a minute has looked only once.
const silenceParts = 6

// ErrOther says that the guest is not the one it was.
var ErrOther = errors.New("another guest than before")

// Listen serves the guest's connections on ln until Close.
func Listen(ln net.Listener, cfg Config) (*Link, error) {
	out, err := openOutput(cfg.Output)
	if err != nil {
		return nil, err
	}
	l := &Link{cfg: cfg, ln: ln, events: make(chan Event, eventBuffer), done: make(chan struct{}), output: out,
		known: cfg.Known, start: cfg.Started, started: cfg.Started}
	go l.accept()
	limit := cfg.Silence
	if limit == 0 {
		limit = DefaultSilence
	}
	go l.silence(limit)
	return l, nil
}

// silence notices a guest that hangs, or whose line does not come back.
func (l *Link) silence(limit time.Duration) {
	t := time.NewTicker(limit / silenceParts)
	defer t.Stop()
	for quiet := 0; quiet <= silenceParts; {
		select {
		case <-l.done:
			return
		case <-t.C:
		}
		l.mu.Lock()
		if quiet++; l.heard || !l.speaks {
			quiet = 0
		}
		l.heard = false
		l.mu.Unlock()
	}
	l.send(Event{Silent: limit})
}

// Events delivers what the guest says. It is not closed.
func (l *Link) Events() <-chan Event { return l.events }

// Tail is the last of the process's output.
func (l *Link) Tail() string { return l.output.tail() }

// Start lets the process start, now or when the guest is there again.
func (l *Link) Start() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.start {
		return nil
	}
	l.start = true
	return l.tell(wire.Frame{Start: &wire.Start{}})
}

// Stop asks for an orderly end, now or when the guest is there again.
func (l *Link) Stop(reason string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stop != nil {
		return nil
	}
	l.stop = &wire.Stop{Reason: reason}
	return l.tell(wire.Frame{Stop: l.stop})
}

// tell sends on the present connection; without one the next resumption will.
func (l *Link) tell(f wire.Frame) error {
	if l.conn == nil || !l.resumed {
		return nil
	}
	return l.write(l.conn, f)
}

func (l *Link) write(c net.Conn, f wire.Frame) error {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("line to guest: %w", err)
	}
	if err := wire.WriteFrame(c, f); err != nil {
		return fmt.Errorf("line to guest: %w", err)
	}
	return nil
}

// Close ends the line.
func (l *Link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	close(l.done)
	err := l.ln.Close()
	if l.conn != nil {
		err = errors.Join(err, l.conn.Close())
	}
	return errors.Join(err, l.output.close())
}

func (l *Link) send(e Event) bool {
	select {
	case l.events <- e:
		return true
	case <-l.done:
		return false
	}
}

func (l *Link) accept() {
	for {
		conn, err := l.ln.Accept()
		if err != nil {
			l.mu.Lock()
			closed := l.closed
			l.mu.Unlock()
			if !closed {
				l.send(Event{Err: fmt.Errorf("accept guest: %w", err)})
			}
			return
		}
		// One at a time: the guest itself dials again only when its line broke.
		if err := l.serve(conn); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			l.cfg.Log.Warn("line to guest ended", "err", err)
		}
	}
}

func (l *Link) serve(conn net.Conn) error {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conn, l.resumed = nil, false
		if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			l.cfg.Log.Warn("close line to guest", "err", err)
		}
	}()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return net.ErrClosed
	}
	l.conn = conn
	l.mu.Unlock()
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	f, err := wire.ReadFrame(conn)
	if err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	if f.Hello == nil {
		return l.broken(errors.New("the guest's first frame is no hello"))
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	fresh, err := l.greet(conn, *f.Hello)
	if err != nil {
		return l.broken(err)
	}
	if fresh {
		id := *l.identity()
		if !l.send(Event{Hello: &id}) {
			return nil
		}
	}
	for {
		f, err := wire.ReadFrame(conn)
		if errors.Is(err, wire.ErrMalformed) || errors.Is(err, wire.ErrTooLong) {
			return l.broken(err)
		}
		if err != nil {
			return err
		}
		if err := l.take(conn, f); err != nil {
			return err
		}
	}
}

func (l *Link) broken(err error) error {
	l.send(Event{Err: err})
	return err
}

func (l *Link) identity() *Identity {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known
}

// greet answers a Hello: Config to a guest that is new, Resume to the known one.
func (l *Link) greet(conn net.Conn, h wire.Hello) (fresh bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.Version != wire.Version {
		return false, fmt.Errorf("guest speaks protocol version %d, want %d", h.Version, wire.Version)
	}
	id := Identity{PublicKey: h.PublicKey, BootID: h.BootID, Kernel: h.Kernel}
	switch {
	case l.known == nil && h.Running:
		return false, errors.New("guest says that it was configured, but nobody here did")
	case l.known != nil && *l.known != id:
		return false, fmt.Errorf("%w: boot id %q, key %q", ErrOther, id.BootID, id.PublicKey)
	case h.Running:
		if err := l.write(conn, wire.Frame{Resume: &wire.Resume{OutputFrom: l.output.next()}}); err != nil {
			return false, err
		}
	default:
		// Fresh, or the known guest whose line broke before it had its Config.
		c := l.cfg.Guest
		c.TimeMs = l.cfg.Now().UnixMilli()
		c.Entropy = make([]byte, entropyLen)
		if _, err := rand.Read(c.Entropy); err != nil {
			return false, fmt.Errorf("entropy for the guest: %w", err)
		}
		if err := l.write(conn, wire.Frame{Config: &c}); err != nil {
			return false, err
		}
		fresh = l.known == nil
		l.known = &id
	}
	l.resumed = true
	if l.start && !l.started {
		if err := l.write(conn, wire.Frame{Start: &wire.Start{}}); err != nil {
			return fresh, err
		}
	}
	if l.stop != nil {
		return fresh, l.write(conn, wire.Frame{Stop: l.stop})
	}
	return fresh, nil
}

func (l *Link) take(conn net.Conn, f wire.Frame) error {
	l.mu.Lock()
	l.heard = true
	l.mu.Unlock()
	switch {
	case f.Output != nil:
		return l.output.write(*f.Output)
	case f.Report != nil:
		l.send(Event{Report: f.Report})
	case f.Started != nil:
		l.mu.Lock()
		l.started = true
		l.mu.Unlock()
		l.send(Event{Started: f.Started})
	case f.Health != nil:
		l.mu.Lock()
		same := l.health != nil && *l.health == *f.Health
		l.health, l.speaks = f.Health, true
		l.mu.Unlock()
		// One that is repeated says only that the guest is alive.
		if !same {
			l.send(Event{Health: f.Health})
		}
	case f.Fatal != nil, f.Exit != nil:
		l.mu.Lock()
		l.speaks = false
		l.mu.Unlock()
		if !l.send(Event{Fatal: f.Fatal, Exit: f.Exit}) {
			return nil
		}
		// The guest powers off on this; from here the event is ours.
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.write(conn, wire.Frame{ExitOK: &wire.ExitOK{}})
	default:
		return l.broken(errors.New("the guest sent a frame that only a host sends, or a second hello"))
	}
	return nil
}
