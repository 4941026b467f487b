// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/link"
	"github.com/zos-node/zos/guest/output"
	"github.com/zos-node/zos/guest/power"
	"github.com/zos-node/zos/guest/process"
	"github.com/zos-node/zos/guest/wire"
)

// lastWords is how long a guest waits for the agent's acknowledgement before
// it powers off.
const lastWords = 5 * time.Second

// guest is the whole state of PID 1.
type guest struct {
	table  *process.Table
	ring   *output.Ring
	link   *link.Link
	config chan wire.Config // one
	start  chan struct{}    // closed by Start
	stop   chan struct{}    // closed by the first wish to end
	failed chan failure     // from any goroutine
	signal chan os.Signal
	once   sync.Once    // of stop
	main   atomic.Int64 // pid of the workload's process, 0 without one
}

// failure ends the guest: a phase and what went wrong in it.
type failure struct {
	phase string
	err   error
}

func newGuest() *guest {
	g := &guest{table: process.NewTable(), ring: output.New(output.Limit), config: make(chan wire.Config, 1),
		start: make(chan struct{}), stop: make(chan struct{}), failed: make(chan failure, 1), signal: make(chan os.Signal, 64)}
	g.link = &link.Link{Ring: g.ring, Handler: g, Dial: link.DialHost, Say: say}
	return g
}

// say writes to the console. Nobody may be there to read; there is nobody to
// tell that to either.
func say(format string, args ...any) {
	text := fmt.Sprintf("zos-guest: "+format, args...)
	if _, err := os.Stderr.WriteString(strings.ReplaceAll(text, "\n", " | ") + "\n"); err != nil {
		return
	}
}

// run never returns: it ends with the machine powered off.
func (g *guest) run() {
	// All signals are caught: as PID 1 this program must not die of any.
	signal.Notify(g.signal)
	var f failure
	if err := guarded(func() error { return g.live(&f) }); err != nil {
		f.err = err
		g.fatal(f)
	}
	off()
}

// live is the guest's life; f.phase is where it stands.
func (g *guest) live(f *failure) error {
	f.phase = "mounts"
	if err := earlyMounts(); err != nil {
		return err
	}
	f.phase = "modules"
	if err := loadModules("line"); err != nil {
		return err
	}
	late := func() error { return loadModules("late") }
	if !seeded() {
		if err := late(); err != nil {
			return err
		}
		late = func() error { return nil }
	}
	f.phase = "key"
	hello, err := makeHello()
	if err != nil {
		return err
	}
	g.link.Hello = hello
	g.background("signals", g.signals)
	g.background("power button", g.button)
	g.background("link", func() error { g.link.Run(context.Background()); return nil })
	f.phase = "modules" // while the agent answers
	if err := loadModules("root"); err != nil {
		return err
	}
	f.phase = "agent"
	w := &workload{guest: g}
	select {
	case w.config = <-g.config:
	case <-g.stop:
		return nil // not wanted; nothing was set up
	case other := <-g.failed:
		*f = other
		return other.err
	}
	if err := w.setup(&f.phase); err != nil {
		return errors.Join(err, w.teardown())
	}
	f.phase = "modules" // while the agent compares the report
	if err := late(); err != nil {
		return errors.Join(err, w.teardown())
	}
	if err := closeKernel("/proc/sys/kernel"); err != nil {
		return errors.Join(err, w.teardown())
	}
	f.phase = "start"
	w.ahead()
	select {
	case <-g.start:
	case <-g.stop:
		g.leave(wire.Exit{Requested: true})
		return w.teardown()
	case other := <-g.failed:
		*f = other
		return errors.Join(other.err, w.teardown())
	}
	exit, err := w.run(&f.phase)
	if err != nil {
		return errors.Join(err, w.teardown())
	}
	f.phase = "end"
	err = w.teardown()
	g.leave(exit)
	return err
}

// background runs f beside everything else. Its failure, or its panic, is the
// guest's.
func (g *guest) background(name string, f func() error) {
	go func() {
		if err := guarded(f); err != nil {
			g.fail(failure{name, err})
		}
	}()
}

func (g *guest) fail(f failure) {
	select {
	case g.failed <- f:
	default:
		say("also failed: %s: %v", f.phase, f.err)
	}
}

// guarded turns a panic into an error with its place.
func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v at %s", p, debug.Stack())
		}
	}()
	return f()
}

// Config implements link.Handler.
func (g *guest) Config(c wire.Config) { g.config <- c }

// Start implements link.Handler; a new agent may say it again.
func (g *guest) Start() {
	select {
	case <-g.start:
	default:
		close(g.start)
	}
}

// Stop implements link.Handler.
func (g *guest) Stop(reason string) { g.end("the agent: " + reason) }

// end asks for an orderly end; only the first wish counts.
func (g *guest) end(why string) {
	g.once.Do(func() {
		say("stop: %s", why)
		close(g.stop)
	})
}

// leave tells the end and gives the agent a moment to take it.
func (g *guest) leave(e wire.Exit) {
	g.link.Exit(e)
	select {
	case <-g.link.ExitOK():
	case <-time.After(lastWords):
		say("no agent took the end: code=%d signal=%q", e.Code, e.Signal)
	}
}

// fatal tells why there is no workload.
func (g *guest) fatal(f failure) {
	say("fatal: %s: %v", f.phase, f.err)
	if g.link.Hello == nil {
		return // too early for an agent to be reached
	}
	text := f.err.Error()
	g.link.Fatal(wire.Fatal{Phase: f.phase, Error: text[:min(len(text), 8<<10)]})
	select {
	case <-g.link.FatalOut():
	case <-time.After(lastWords):
	}
}

// button waits for the power button, where there is one.
func (g *guest) button() error {
	c, err := power.Open()
	if errors.Is(err, power.ErrNoACPI) {
		say("no power button: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	for {
		if err := power.Pressed(c); err != nil {
			return err
		}
		g.signal <- syscall.SIGPWR
	}
}

// lastLine is how long the console has to send what was written to it.
const lastLine = time.Second

// off ends the machine. When the firmware does not, the kernel's panic does:
// the agent hears of it. What the serial port has not sent by then nobody
// would ever read: tcdrain(3).
func off() {
	unix.Sync()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if err := unix.IoctlSetInt(int(os.Stderr.Fd()), unix.TCSBRK, 1); err != nil {
			return // not a terminal: nothing is kept back
		}
	}()
	select {
	case <-sent:
	case <-time.After(lastLine):
	}
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	panic(fmt.Sprintf("power off: %v", err))
}

// makeHello makes the guest's key and returns how it introduces itself. The
// private half is used by nobody yet and never leaves this memory.
func makeHello() (func() wire.Hello, error) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	return func() wire.Hello {
		return wire.Hello{BootID: strings.TrimSpace(string(boot)), PublicKey: authorizedKey(public),
			Kernel: unix.ByteSliceToString(uname.Release[:]), UptimeMs: uptime()}
	}, nil
}

// authorizedKey is OpenSSH's text form: two length-prefixed strings, base64.
func authorizedKey(key ed25519.PublicKey) string {
	const kind = "ssh-ed25519"
	b := binary.BigEndian.AppendUint32(nil, uint32(len(kind)))
	b = append(b, kind...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(key)))
	return kind + " " + base64.StdEncoding.EncodeToString(append(b, key...))
}

// uptime in milliseconds.
func uptime() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return -1
	}
	return t.Nano() / 1e6
}
