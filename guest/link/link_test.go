// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/zos-node/zos/guest/output"
	"github.com/zos-node/zos/guest/wire"
)

// patience is for what must come: a link that is wrong fails a test, and does
// not keep it for ever.
const patience = time.Minute

// rig is a guest's link whose agent is the test.
type rig struct {
	*Link
	t      *testing.T
	agents chan net.Conn
	asked  chan string
	conn   net.Conn
}

func (r *rig) Config(c wire.Config) { r.asked <- "config " + c.Machine }
func (r *rig) Start()               { r.asked <- "start" }
func (r *rig) Stop(reason string)   { r.asked <- "stop " + reason }

func newRig(t *testing.T) *rig {
	r := &rig{t: t, agents: make(chan net.Conn), asked: make(chan string, 10)}
	r.Link = &Link{Ring: output.New(100), Handler: r, Say: t.Logf,
		Hello: func() wire.Hello { return wire.Hello{BootID: "b"} },
		Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
			guest, agent := net.Pipe()
			select {
			case r.agents <- agent:
				return guest, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		if r.conn != nil {
			if err := r.conn.Close(); err != nil {
				t.Error(err)
			}
		}
		<-done
	})
	return r
}

// connect takes the next connection and its Hello.
func (r *rig) connect() wire.Hello {
	r.t.Helper()
	r.conn = <-r.agents
	if err := r.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	h := r.recv().Hello
	if h == nil || h.Version != wire.Version || h.BootID != "b" {
		r.t.Fatalf("hello %+v", h)
	}
	return *h
}

func (r *rig) hangUp() {
	r.t.Helper()
	if err := r.conn.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.conn = nil
}

func (r *rig) recv() wire.Frame {
	r.t.Helper()
	f, err := wire.ReadFrame(r.conn)
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

func (r *rig) send(f wire.Frame) {
	r.t.Helper()
	if err := wire.WriteFrame(r.conn, f); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) expect(what string) {
	r.t.Helper()
	select {
	case got := <-r.asked:
		if got != what {
			r.t.Fatalf("asked %q, want %q", got, what)
		}
	case <-time.After(patience):
		r.t.Fatalf("asked nothing, want %q", what)
	}
}

func (r *rig) expectOutput(seq int64, text string) {
	r.t.Helper()
	if o := r.recv().Output; o == nil || o.Seq != seq || string(o.Data) != text {
		r.t.Fatalf("output %+v, want %d %q", o, seq, text)
	}
}

func TestWholeLife(t *testing.T) {
	r := newRig(t)
	if h := r.connect(); h.Running {
		t.Error("runs before it was configured")
	}
	r.send(wire.Frame{Config: &wire.Config{Machine: "web"}})
	r.expect("config web")
	r.Link.Report(wire.Report{Cmdline: "quiet"})
	if f := r.recv(); f.Report == nil || f.Report.Cmdline != "quiet" {
		t.Fatalf("%+v", f)
	}
	r.send(wire.Frame{Start: &wire.Start{}})
	r.expect("start")
	r.Link.Started(wire.Started{PID: 7})
	if f := r.recv(); f.Started == nil {
		t.Fatalf("%+v", f)
	}
	r.Ring.Add("stdout", []byte("one"))
	r.expectOutput(0, "one")
	r.Ring.Add("stdout", []byte("two"))
	r.expectOutput(1, "two")
	r.hangUp()

	// The agent is away; the guest goes on.
	r.Link.Health(wire.Health{OK: true})
	r.Ring.Add("stderr", []byte("three"))
	if h := r.connect(); !h.Running || h.OutputSeq != 3 {
		t.Errorf("hello %+v", h)
	}
	r.send(wire.Frame{Resume: &wire.Resume{OutputFrom: 1}})
	if f := r.recv(); f.Report == nil {
		t.Fatalf("%+v", f)
	}
	if f := r.recv(); f.Started == nil || f.Started.PID != 7 {
		t.Fatalf("%+v", f)
	}
	if f := r.recv(); f.Health == nil || !f.Health.OK {
		t.Fatalf("%+v", f)
	}
	r.expectOutput(1, "two")
	r.expectOutput(2, "three")

	r.send(wire.Frame{Stop: &wire.Stop{Reason: "end"}})
	r.expect("stop end")
	r.Ring.Add("stdout", []byte("bye"))
	r.Link.Exit(wire.Exit{Code: 3})
	r.expectOutput(3, "bye")
	if f := r.recv(); f.Exit == nil || f.Exit.Code != 3 {
		t.Fatalf("%+v", f)
	}
	select {
	case <-r.ExitOK():
		t.Error("acknowledged by itself")
	default:
	}
	r.send(wire.Frame{ExitOK: &wire.ExitOK{}})
	<-r.ExitOK()
}

func TestFatalBeforeConfig(t *testing.T) {
	r := newRig(t)
	r.Link.Fatal(wire.Fatal{Phase: "modules", Error: "none"})
	r.connect()
	if f := r.recv(); f.Fatal == nil || f.Fatal.Phase != "modules" {
		t.Fatalf("%+v", f)
	}
	r.hangUp()
	<-r.FatalOut()
	r.connect() // it still tells whoever comes
	if f := r.recv(); f.Fatal == nil {
		t.Fatalf("%+v", f)
	}
}

// A frame that does not fit ends the connection, and the guest comes again.
func TestProtocol(t *testing.T) {
	for name, f := range map[string]wire.Frame{
		"resume of a fresh guest": {Resume: &wire.Resume{}},
		"start at once":           {Start: &wire.Start{}},
		"the guest's own":         {Started: &wire.Started{}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.connect()
			r.send(f)
			if _, err := wire.ReadFrame(r.conn); !errors.Is(err, io.EOF) {
				t.Errorf("%v", err)
			}
			r.hangUp()
			r.connect()
			r.send(wire.Frame{Stop: &wire.Stop{Reason: "unwanted"}})
			r.expect("stop unwanted")
		})
	}
}

func TestSecondConfig(t *testing.T) {
	r := newRig(t)
	r.connect()
	r.send(wire.Frame{Config: &wire.Config{Machine: "a"}})
	r.expect("config a")
	r.send(wire.Frame{Config: &wire.Config{Machine: "b"}})
	if _, err := wire.ReadFrame(r.conn); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
	r.hangUp()
	if h := r.connect(); !h.Running {
		t.Error("forgot its configuration")
	}
	// Nor may a new agent configure it again.
	r.send(wire.Frame{Config: &wire.Config{Machine: "c"}})
	if _, err := wire.ReadFrame(r.conn); !errors.Is(err, io.EOF) {
		t.Errorf("a guest that runs took a configuration: %v", err)
	}
	r.hangUp()
	r.connect()
	r.send(wire.Frame{Resume: &wire.Resume{}})
	r.send(wire.Frame{Start: &wire.Start{}})
	r.expect("start") // and nothing before it
	if len(r.asked) != 0 {
		t.Errorf("asked %q", <-r.asked)
	}
}

// An acknowledgement counts for what this agent was told, and for nothing that
// it has yet to hear: else a guest would power off with its end untold.
func TestExitOKBeforeExit(t *testing.T) {
	r := newRig(t)
	r.connect()
	r.send(wire.Frame{Config: &wire.Config{Machine: "a"}})
	r.expect("config a")
	early := func(when string) {
		t.Helper()
		r.send(wire.Frame{ExitOK: &wire.ExitOK{}})
		r.send(wire.Frame{Start: &wire.Start{}}) // frames are handled in order: when this one was, so was the other
		r.expect("start")
		for name, c := range map[string]<-chan struct{}{"exit": r.ExitOK(), "fatal": r.FatalOut()} {
			select {
			case <-c:
				t.Fatalf("%s: the %s was acknowledged", when, name)
			default:
			}
		}
	}
	early("no end yet")
	// The end goes out behind the output, which nobody takes yet.
	r.Ring.Add("stdout", []byte("last"))
	r.Link.Exit(wire.Exit{Code: 3})
	early("an end that was not told")
	r.expectOutput(0, "last")
	if f := r.recv(); f.Exit == nil || f.Exit.Code != 3 {
		t.Fatalf("%+v", f)
	}
	r.send(wire.Frame{ExitOK: &wire.ExitOK{}})
	<-r.ExitOK()
}
