// SPDX-License-Identifier: Apache-2.0

// Package link keeps the guest's one connection to its agent. It dials, for
// ever: an agent that died comes back, and the workload must not notice. What
// has to be said is kept as the newest state (report, started, health, exit),
// not as a queue, so that an absent agent costs no memory and a new one gets
// everything that is still true.
package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/zos-node/zos/guest/output"
	"github.com/zos-node/zos/guest/wire"
)

// Handler is what the agent can ask of the guest.
type Handler interface {
	Config(wire.Config) // once
	Start()
	Stop(reason string)
}

// Link is the guest's side.
type Link struct {
	Dial    func(context.Context) (io.ReadWriteCloser, error)
	Hello   func() wire.Hello // without Running and OutputSeq
	Handler Handler
	Ring    *output.Ring
	Say     func(format string, args ...any) // to the console

	mu         sync.Mutex
	configured bool
	report     *wire.Report
	started    *wire.Started
	health     *wire.Health
	exit       *wire.Exit
	fatal      *wire.Fatal
	changed    chan struct{} // closed and replaced; nil until someone waits
	exitOK     chan struct{}
	fatalOut   chan struct{}
	once       sync.Once
}

// errProtocol ends a connection, not the guest: the next agent may know
// better.
var errProtocol = errors.New("the agent does not keep to the protocol")

func (l *Link) init() {
	l.once.Do(func() { l.exitOK, l.fatalOut = make(chan struct{}), make(chan struct{}) })
}

func (l *Link) set(f func()) {
	l.init()
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Report is sent now and to every later agent; so are the following.
func (l *Link) Report(r wire.Report) { l.set(func() { l.report = &r }) }

// Started says that the process runs.
func (l *Link) Started(s wire.Started) { l.set(func() { l.started = &s }) }

// Health replaces what was said before.
func (l *Link) Health(h wire.Health) { l.set(func() { l.health = &h }) }

// Exit goes out behind all output.
func (l *Link) Exit(e wire.Exit) { l.set(func() { l.exit = &e }) }

// Fatal goes out at once, also before there is a configuration.
func (l *Link) Fatal(f wire.Fatal) { l.set(func() { l.fatal = &f }) }

// ExitOK is closed when the agent has the Exit.
func (l *Link) ExitOK() <-chan struct{} { l.init(); return l.exitOK }

// FatalOut is closed when the agent has acknowledged a Fatal or hung up
// behind it.
func (l *Link) FatalOut() <-chan struct{} { l.init(); return l.fatalOut }

// Bounds of the pause between two attempts.
const (
	firstPause = 2 * time.Millisecond
	lastPause  = time.Second
	sayAfter   = 5 * time.Second
)

// Run connects again and again until ctx ends.
func (l *Link) Run(ctx context.Context) {
	l.init()
	pause, since, said := firstPause, time.Now(), time.Now()
	for ctx.Err() == nil {
		conn, err := l.Dial(ctx)
		if err == nil {
			var served bool
			if served, err = l.serve(ctx, conn); served {
				pause, since, said = firstPause, time.Now(), time.Now()
			}
		}
		if time.Since(said) > sayAfter {
			l.Say("waiting for the agent: elapsed=%s last error: %v", time.Since(since).Round(time.Second), err)
			said = time.Now()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// session is one connection and what went out on it.
type session struct {
	*Link
	conn    io.ReadWriteCloser
	ready   bool // the agent answered the Hello
	next    int64
	report  *wire.Report
	started *wire.Started
	health  *wire.Health
	exit    *wire.Exit
	fatal   *wire.Fatal
}

// serve speaks on one connection until it breaks. served says that the agent
// answered at all.
func (l *Link) serve(ctx context.Context, conn io.ReadWriteCloser) (served bool, err error) {
	s := &session{Link: l, conn: conn}
	hello := l.Hello()
	l.mu.Lock()
	hello.Running = l.configured
	l.mu.Unlock()
	hello.Version, hello.OutputSeq = wire.Version, l.Ring.Next()
	stop := make(chan struct{})
	closed := make(chan error, 1)
	go func() {
		select {
		case <-stop:
		case <-ctx.Done():
		}
		closed <- conn.Close()
	}()
	written := make(chan error, 1)
	if err = wire.WriteFrame(conn, wire.Frame{Hello: &hello}); err == nil {
		go func() { written <- s.write(stop) }()
		err = s.read(hello.Running)
		s.mu.Lock()
		served = s.ready
		if s.fatal != nil {
			closeOnce(s.fatalOut) // it was written, and the agent hung up
		}
		s.mu.Unlock()
		close(stop)
		err = errors.Join(err, <-written)
	} else {
		close(stop)
	}
	return served, errors.Join(err, <-closed)
}

// read takes the agent's frames.
func (s *session) read(running bool) error {
	for first := true; ; first = false {
		f, err := wire.ReadFrame(s.conn)
		if err != nil {
			return err
		}
		if first {
			if err := s.answer(f, running); err != nil {
				return err
			}
			continue
		}
		switch {
		case f.Start != nil:
			s.Handler.Start()
		case f.Stop != nil:
			s.Handler.Stop(f.Stop.Reason)
		case f.ExitOK != nil:
			s.mu.Lock()
			if s.fatal != nil {
				closeOnce(s.fatalOut)
			}
			if s.exit != nil {
				closeOnce(s.exitOK)
			}
			s.mu.Unlock()
		default:
			return fmt.Errorf("%w: unexpected frame", errProtocol)
		}
	}
}

// answer handles the frame behind the Hello.
func (s *session) answer(f wire.Frame, running bool) error {
	switch {
	case f.Config != nil && !running:
		s.set(func() { s.configured, s.ready = true, true })
		s.Handler.Config(*f.Config)
	case f.Resume != nil && running:
		s.set(func() { s.next, s.ready = f.Resume.OutputFrom, true })
	case f.Stop != nil:
		// An agent that does not want this guest any more.
		s.set(func() { s.ready = true })
		s.Handler.Stop(f.Stop.Reason)
	default:
		return fmt.Errorf("%w: running=%t, and neither Config nor Resume fits", errProtocol, running)
	}
	return nil
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// write sends what is due until stop.
func (s *session) write(stop <-chan struct{}) error {
	for {
		output := s.Ring.Changed()
		f, state := s.due()
		if state == nil {
			if err := wire.WriteFrame(s.conn, f); err != nil {
				return errors.Join(err, s.conn.Close()) // wakes the reader
			}
			continue
		}
		select {
		case <-stop:
			return nil
		case <-output:
		case <-state:
		}
	}
}

// due picks the next frame, or returns what to wait for.
func (s *session) due() (wire.Frame, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.Link; l.fatal != nil && s.fatal == nil {
		s.fatal = l.fatal
		return wire.Frame{Fatal: l.fatal}, nil
	}
	if s.ready {
		if f, ok := s.dueState(); ok {
			return f, nil
		}
		if p, ok := s.Ring.At(s.next); ok {
			s.next = p.Seq + 1
			return wire.Frame{Output: &wire.Output{Seq: p.Seq, Stream: p.Stream, Data: p.Data, Dropped: s.Ring.Dropped()}}, nil
		}
		if l := s.Link; l.exit != nil && s.exit == nil {
			e := *l.exit
			e.Dropped = s.Ring.Dropped()
			s.exit = &e
			return wire.Frame{Exit: &e}, nil
		}
	}
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return wire.Frame{}, s.changed
}

// dueState compares by pointer what is with what was sent here.
func (s *session) dueState() (wire.Frame, bool) {
	l := s.Link
	switch {
	case l.report != s.report:
		s.report = l.report
		return wire.Frame{Report: l.report}, true
	case l.started != s.started:
		s.started = l.started
		return wire.Frame{Started: l.started}, true
	case l.health != s.health:
		s.health = l.health
		return wire.Frame{Health: l.health}, true
	}
	return wire.Frame{}, false
}
