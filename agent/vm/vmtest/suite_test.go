// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/guest/wire"
)

// parts are what the host's side put into the outer machine.
type parts struct {
	Verity string // root hash
	Blocks int64
	Marker int64 // offset of a block of /marked in the root disk
	// Attacks has the cases of attack_test.go run instead of the others.
	Attacks bool
}

func loadParts(t *testing.T) parts {
	t.Helper()
	var p parts
	b, err := os.ReadFile(partsDir + "/parts.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// suite is one case under one hypervisor.
type suite struct {
	*testing.T
	parts
	hypervisor
	cids *atomic.Uint32 // counts: every VM has a context id of its own
}

// limit of anything that is waited for: emulated twice over, a guest's boot
// takes up to twenty seconds.
const limit = 3 * time.Minute

func (s *suite) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), limit)
	s.Cleanup(cancel)
	return ctx
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// machine is a VM and the agent's side of it.
type machine struct {
	*suite
	cfg      vm.Config
	driver   vm.Driver
	listener net.Listener
	vm       vm.VM
	conn     net.Conn
	hello    wire.Hello
	output   strings.Builder // both streams, in the order of their arrival
	stdout   strings.Builder
	nextSeq  int64
}

func (s *suite) config(name string) vm.Config {
	s.Helper()
	dir := filepath.Join("/run/zos/vm", name)
	s.must(os.MkdirAll(dir, 0o700))
	return vm.Config{ID: name, Dir: dir, VCPUs: 1, MemoryMiB: 192, Kernel: partsDir + "/vmlinuz", Initramfs: partsDir + "/initramfs",
		Cmdline: "console=ttyS0 quiet loglevel=4 panic=0 reboot=t random.trust_cpu=on " + s.verityWord(s.Verity),
		Disks:   []vm.Disk{{Path: partsDir + "/root.img", ReadOnly: true, Serial: "root"}}, CID: s.cids.Add(1) + 2}
}

func (s *suite) verityWord(root string) string {
	return fmt.Sprintf("zos.verity=%s,%d", root, s.Blocks)
}

// start listens, starts and takes the guest's Hello.
func (s *suite) start(cfg vm.Config) *machine {
	s.Helper()
	m := &machine{suite: s, cfg: cfg, driver: s.open()}
	var err error
	m.listener, err = m.driver.Listen(cfg, wire.Port)
	s.must(err)
	begun := time.Now()
	m.vm, err = m.driver.Start(s.ctx(), cfg)
	s.must(err)
	s.Cleanup(m.clean)
	s.Logf("started after %s", time.Since(begun).Round(time.Millisecond))
	return m
}

func (m *machine) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if m.Failed() {
		if c, ok := m.vm.(interface{ Console() string }); ok {
			m.Logf("console of the guest:\n%s", c.Console())
		}
	}
	if err := m.vm.Kill(ctx); err != nil {
		m.Errorf("kill at the end: %v", err)
	}
	m.hangUp()
}

// hangUp ends the agent's side, as its death would.
func (m *machine) hangUp() {
	for _, c := range []io.Closer{m.conn, m.listener} {
		switch c := c.(type) {
		case net.Conn:
			if c == nil {
				continue
			}
		case net.Listener:
			if c == nil {
				continue
			}
		case nil:
			continue
		}
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			m.Errorf("close: %v", err)
		}
	}
	m.conn, m.listener = nil, nil
}

// accept waits for the guest's connection and Hello, or the VM's end. Like the
// agent it passes over a connection that ends before its first word: the guest
// gave up on it and dials again.
func (m *machine) accept() {
	m.Helper()
	type result struct {
		conn net.Conn
		f    wire.Frame
		err  error
	}
	accepted := make(chan result, 1)
	listener := m.listener
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				accepted <- result{err: err}
				return
			}
			err = c.SetReadDeadline(time.Now().Add(limit))
			var f wire.Frame
			if err == nil {
				f, err = wire.ReadFrame(c)
			}
			if errors.Is(err, io.EOF) {
				if err = c.Close(); err == nil {
					continue
				}
			}
			accepted <- result{c, f, err}
			return
		}
	}()
	var f wire.Frame
	select {
	case r := <-accepted:
		m.must(r.err)
		m.conn, f = r.conn, r.f
	case e := <-m.vm.Events():
		m.Fatalf("instead of a connection: %+v", e)
	case <-m.ctx().Done():
		m.Fatal("the guest does not connect")
	}
	if f.Hello == nil || f.Hello.Version != wire.Version || f.Hello.BootID == "" || !strings.HasPrefix(f.Hello.PublicKey, "ssh-ed25519 AAAA") {
		m.Fatalf("no hello: %+v", f)
	}
	m.hello = *f.Hello
	m.Logf("hello: running=%t uptime=%d ms kernel=%s", m.hello.Running, m.hello.UptimeMs, m.hello.Kernel)
}

func (m *machine) recv() wire.Frame {
	m.Helper()
	m.must(m.conn.SetReadDeadline(time.Now().Add(limit)))
	f, err := wire.ReadFrame(m.conn)
	m.must(err)
	if f.Fatal != nil {
		m.Logf("fatal: %+v", *f.Fatal)
	}
	return f
}

// until receives, collecting output on the way, until want is content.
func (m *machine) until(what string, want func(wire.Frame) bool) wire.Frame {
	m.Helper()
	for {
		f := m.recv()
		if o := f.Output; o != nil {
			if o.Seq != m.nextSeq || o.Dropped != 0 {
				m.Errorf("output %d, want %d; %d bytes dropped", o.Seq, m.nextSeq, o.Dropped)
			}
			m.nextSeq = o.Seq + 1
			m.output.Write(o.Data)
			if o.Stream == "stdout" {
				m.stdout.Write(o.Data)
			}
		}
		if want(f) {
			return f
		}
		if f.Fatal != nil || f.Exit != nil {
			m.Fatalf("waiting for %s: fatal %+v, exit %+v", what, f.Fatal, f.Exit)
		}
	}
}

// says waits for texts in the output, which may have come already. Two
// streams have no order among each other.
func (m *machine) says(texts ...string) {
	m.Helper()
	for _, text := range texts {
		if !strings.Contains(m.output.String(), text) {
			m.until("output "+text, func(wire.Frame) bool { return strings.Contains(m.output.String(), text) })
		}
	}
}

// described ends the workload's first line; the second text goes to stderr.
func described() []string { return []string{"}\n", "to stderr\n"} }

func (m *machine) send(f wire.Frame) {
	m.Helper()
	m.must(wire.WriteFrame(m.conn, f))
}

// configure answers a fresh guest's Hello and waits for its report.
func (m *machine) configure(change func(*wire.Config)) wire.Report {
	m.Helper()
	if m.hello.Running {
		m.Error("a fresh guest says that it runs")
	}
	c := wire.Config{Machine: "web", Hosts: map[string]string{"web": "10.9.0.2"}, TimeMs: time.Now().UnixMilli(), Entropy: make([]byte, 32),
		Process: wire.Process{Args: []string{"/app", "serve"}, Env: []string{"A=1", "PATH=/"}, Cwd: "/", StopSignal: "SIGUSR2", StopGraceMs: 20000},
		Mounts:  []wire.Mount{{Type: "tmpfs", Path: "/tmp", SizeMiB: 8, Mode: 0o1777}},
		Check:   wire.Check{Kind: "none"}}
	if _, err := rand.Read(c.Entropy); err != nil {
		m.Fatal(err)
	}
	if change != nil {
		change(&c)
	}
	m.send(wire.Frame{Config: &c})
	return *m.until("report", func(f wire.Frame) bool { return f.Report != nil }).Report
}

// run starts the process.
func (m *machine) run() {
	m.Helper()
	m.send(wire.Frame{Start: &wire.Start{}})
	s := m.until("started", func(f wire.Frame) bool { return f.Started != nil }).Started
	m.Logf("process %d started at %d ms of guest time", s.PID, s.UptimeMs)
}

// event waits for the next one.
func (m *machine) event(kind vm.EventKind) vm.Event {
	m.Helper()
	select {
	case e, ok := <-m.vm.Events():
		if !ok || e.Kind != kind {
			m.Fatalf("event %+v (%t), want %s", e, ok, kind)
		}
		m.Logf("event %s: %s", e.Kind, e.Detail)
		return e
	case <-m.ctx().Done():
		m.Fatalf("no event %s", kind)
	}
	return vm.Event{}
}

// ended expects the exit as the last event, kills, and looks for leftovers.
func (m *machine) ended() {
	m.Helper()
	m.event(vm.EventExit)
	if e, ok := <-m.vm.Events(); ok {
		m.Errorf("after the exit: %+v", e)
	}
	m.killed()
}

func (m *machine) killed() {
	m.Helper()
	m.must(m.vm.Kill(m.ctx()))
	m.must(m.vm.Kill(m.ctx())) // once more is no error
	m.hangUp()
	if _, err := os.Stat("/sys/fs/cgroup/zos/" + m.cfg.ID); !errors.Is(err, os.ErrNotExist) {
		m.Errorf("the cgroup is left: %v", err)
	}
	err := filepath.WalkDir(m.cfg.Dir, func(name string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			m.Errorf("left behind: %s", name)
		}
		return err
	})
	m.must(err)
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", m.vm.PID())); !errors.Is(err, os.ErrNotExist) {
		m.Errorf("process %d is left: %v", m.vm.PID(), err)
	}
}
