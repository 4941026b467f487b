// SPDX-License-Identifier: Apache-2.0

package guestlink

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/guest/wire"
)

type guest struct {
	t    *testing.T
	conn net.Conn
}

func dial(t *testing.T, path string) *guest {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &guest{t, c}
}

func (g *guest) send(f wire.Frame) {
	g.t.Helper()
	if err := wire.WriteFrame(g.conn, f); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) read() wire.Frame {
	g.t.Helper()
	f, err := wire.ReadFrame(g.conn)
	if err != nil {
		g.t.Fatal(err)
	}
	return f
}

func hello(running bool) wire.Frame {
	return wire.Frame{Hello: &wire.Hello{Version: wire.Version, BootID: "b1", PublicKey: "ssh-ed25519 k", Running: running}}
}

func newLink(t *testing.T, dir string, known *Identity, started bool) (*Link, string) {
	t.Helper()
	path := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(ln, Config{Guest: wire.Config{Machine: "web"}, Known: known, Started: started, Output: filepath.Join(dir, "output.log"), Now: func() time.Time { return time.Unix(9, 0) }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, path
}

func TestLifeOfAGuest(t *testing.T) {
	dir := t.TempDir()
	l, path := newLink(t, dir, nil, false)
	g := dial(t, path)
	g.send(hello(false))
	c := g.read().Config
	if c == nil || c.Machine != "web" || c.TimeMs != 9000 || len(c.Entropy) != entropyLen {
		t.Fatalf("config %+v", c)
	}
	if e := <-l.Events(); e.Hello == nil || e.Hello.PublicKey != "ssh-ed25519 k" {
		t.Fatalf("event %+v", e)
	}
	g.send(wire.Frame{Report: &wire.Report{Cmdline: "x"}})
	if e := <-l.Events(); e.Report == nil {
		t.Fatalf("event %+v", e)
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	if g.read().Start == nil {
		t.Fatal("no start")
	}
	g.send(wire.Frame{Started: &wire.Started{PID: 2}})
	<-l.Events()
	g.send(wire.Frame{Output: &wire.Output{Seq: 0, Stream: "stdout", Data: []byte("one\n")}})
	g.send(wire.Frame{Health: &wire.Health{OK: true}})
	<-l.Events()
	// The line breaks; the guest dials again, and is resumed behind piece 0.
	if err := g.conn.Close(); err != nil {
		t.Fatal(err)
	}
	g = dial(t, path)
	g.send(hello(true))
	if r := g.read().Resume; r == nil || r.OutputFrom != 1 {
		t.Fatalf("resume %+v", r)
	}
	g.send(wire.Frame{Output: &wire.Output{Seq: 0, Data: []byte("one\n")}})
	g.send(wire.Frame{Output: &wire.Output{Seq: 1, Data: []byte("two\n")}})
	if err := l.Stop("end"); err != nil {
		t.Fatal(err)
	}
	if s := g.read().Stop; s == nil || s.Reason != "end" {
		t.Fatalf("stop %+v", s)
	}
	g.send(wire.Frame{Exit: &wire.Exit{Code: 3, Requested: true}})
	if e := <-l.Events(); e.Exit == nil || e.Exit.Code != 3 {
		t.Fatalf("event %+v", e)
	}
	if g.read().ExitOK == nil {
		t.Fatal("exit was not acknowledged")
	}
	if b, err := os.ReadFile(filepath.Join(dir, "output.log")); err != nil || string(b) != "one\ntwo\n" {
		t.Errorf("output %q %v", b, err)
	}
	if l.Tail() != "one\ntwo\n" {
		t.Errorf("tail %q", l.Tail())
	}
}

func TestAdoptedGuestIsResumedNotStartedAgain(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "output.log.seq"), []byte("41"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, path := newLink(t, dir, &Identity{PublicKey: "ssh-ed25519 k", BootID: "b1"}, true)
	g := dial(t, path)
	g.send(hello(true))
	if r := g.read().Resume; r == nil || r.OutputFrom != 41 {
		t.Fatalf("resume %+v", r)
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	if err := l.Stop("now"); err != nil {
		t.Fatal(err)
	}
	if f := g.read(); f.Stop == nil {
		t.Fatalf("first after resume is %+v", f)
	}
}

func TestStartWaitsForTheGuest(t *testing.T) {
	l, path := newLink(t, t.TempDir(), nil, false)
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	g := dial(t, path)
	g.send(hello(false))
	if g.read().Config == nil || g.read().Start == nil {
		t.Fatal("want config, then start")
	}
}

func TestBrokenGuests(t *testing.T) {
	known := &Identity{PublicKey: "ssh-ed25519 k", BootID: "b1"}
	for name, c := range map[string]struct {
		known *Identity
		first wire.Frame
		want  string
	}{
		"no hello":         {nil, wire.Frame{Report: &wire.Report{}}, "no hello"},
		"other version":    {nil, wire.Frame{Hello: &wire.Hello{Version: 99}}, "version 99"},
		"unknown runs":     {nil, hello(true), "nobody here did"},
		"another boot":     {known, wire.Frame{Hello: &wire.Hello{Version: wire.Version, BootID: "b2", PublicKey: "ssh-ed25519 k"}}, ErrOther.Error()},
		"another key":      {known, wire.Frame{Hello: &wire.Hello{Version: wire.Version, BootID: "b1", PublicKey: "x", Running: true}}, ErrOther.Error()},
		"a host's message": {nil, wire.Frame{Start: &wire.Start{}}, "no hello"},
	} {
		l, path := newLink(t, t.TempDir(), c.known, false)
		g := dial(t, path)
		g.send(c.first)
		if e := <-l.Events(); e.Err == nil || !strings.Contains(e.Err.Error(), c.want) {
			t.Errorf("%s: %+v", name, e)
		}
	}
	l, path := newLink(t, t.TempDir(), nil, false)
	g := dial(t, path)
	g.send(hello(false))
	<-l.Events()
	if _, err := g.conn.Write([]byte{3, 0, 0, 0, '{', '}', '}'}); err != nil {
		t.Fatal(err)
	}
	if e := <-l.Events(); !errors.Is(e.Err, wire.ErrMalformed) {
		t.Errorf("nonsense: %+v", e)
	}
}

func TestOutputIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "o")
	o, err := openOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	piece := []byte(strings.Repeat("x", 60<<10))
	for i := range 100 {
		if err := o.write(wire.Output{Seq: int64(i), Data: piece}); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.write(wire.Output{Seq: 200, Data: []byte("end"), Dropped: 99}); err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, p := range []string{path, path + oldExt} {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
	}
	if total > 2*maxOutput || len(o.tail()) != tailLen || !strings.Contains(o.tail(), "99 bytes") {
		t.Errorf("keeps %d bytes, tail %d", total, len(o.tail()))
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
}

// A guest that has told its health must go on speaking, on its line or on the
// next one; before that, and behind its end, silence means nothing.
func TestSilence(t *testing.T) {
	const limit = 60 * time.Millisecond
	for name, c := range map[string]struct {
		last   *wire.Frame
		hangUp bool
		silent bool
	}{
		"before its health": {nil, false, false},
		"it hangs":          {&wire.Frame{Health: &wire.Health{OK: true}}, false, true},
		"its line is gone":  {&wire.Frame{Health: &wire.Health{OK: true}}, true, true},
		"behind its end":    {&wire.Frame{Exit: &wire.Exit{}}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			l, err := Listen(ln, Config{Output: filepath.Join(t.TempDir(), "o"), Now: time.Now, Log: slog.New(slog.DiscardHandler), Silence: limit})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}()
			g := dial(t, path)
			g.send(hello(false))
			g.read()
			if e := <-l.Events(); e.Hello == nil {
				t.Fatalf("%+v", e)
			}
			if c.last != nil {
				g.send(*c.last)
				<-l.Events()
			}
			if c.hangUp {
				if err := g.conn.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if c.silent {
				if e := <-l.Events(); e.Silent != limit {
					t.Errorf("%+v", e)
				}
				return
			}
			select {
			case e := <-l.Events():
				t.Errorf("%+v", e)
			case <-time.After(3 * limit):
			}
		})
	}
}

// Repeated health keeps the guest alive and is passed on once.
func TestRepeatedHealth(t *testing.T) {
	l, path := newLink(t, t.TempDir(), nil, false)
	g := dial(t, path)
	g.send(hello(false))
	g.read()
	<-l.Events()
	for _, ok := range []bool{true, true, false, false, true} {
		g.send(wire.Frame{Health: &wire.Health{OK: ok}})
	}
	for _, ok := range []bool{true, false, true} {
		if e := <-l.Events(); e.Health == nil || e.Health.OK != ok {
			t.Errorf("%+v, want %t", e, ok)
		}
	}
}
