// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/qemu"
)

// row is one fault. run puts it in, shows that it was there, and what came of it.
type row struct {
	fault string
	ends  string // how it has to end
	run   func(t *testing.T, w *world, name string)
}

var table = []row{
	{"init panics", "screen, restart, record", initPanics},
	{"init dies", "kernel panic, restart, record", initDies},
	{"init hangs", "reset by the watchdog, record", initHangs},
	{"agent hangs for ever", "screen, restart, record", agentHangsForEver},
	{"no clock", "runs", noClock},
	{"no serial port", "runs, told by the screen", noSerialPort},
	{"512 MB of memory", "runs", littleMemory},
}

// survived are the faults that a node outlives: one machine, one after the other.
var survived = []struct {
	fault string
	ends  string
	run   func(t *testing.T, n *node, name string)
}{
	{"clock in 2100", "not believed", clockIn2100},
	{"agent dies", "started again, record", agentDies},
	{"memory runs out", "runs on, record", memoryRunsOut},
	{"storage is full", "runs on, record", storageIsFull},
	{"agent hangs", "started again, record", agentHangs},
	{"menu", "reset in order", menu},
}

func TestTrouble(t *testing.T) {
	if os.Getenv("ZOS_BOOT") != "all" {
		t.Skip("SKIP here, part of make test-boot")
	}
	w := newWorld(t)
	var lines []string
	row := func(t *testing.T, fault, ends string, run func(t *testing.T)) {
		t.Run(strings.ReplaceAll(fault, " ", "-"), func(t *testing.T) {
			begun := time.Now()
			defer func() {
				held := "ok"
				if t.Failed() {
					held = "FAILED"
				}
				lines = append(lines, fmt.Sprintf("%-22s %-28s %-6s %4.0f s", fault, ends, held, time.Since(begun).Seconds()))
			}()
			run(t)
		})
	}
	t.Run("survived", func(t *testing.T) {
		const name = "survivor"
		n := w.direct(t, name, nil, qemu.Options{Screen: true, Args: []string{"-rtc", "base=2100-01-01T00:00:00"}})
		n.says(0, following)
		n.says(0, `msg="watchdog armed"`)
		for _, s := range survived {
			row(t, s.fault, s.ends, func(t *testing.T) {
				s.run(t, &node{n.Machine, t, w, n.o}, name)
			})
		}
	})
	for i, r := range table {
		row(t, r.fault, r.ends, func(t *testing.T) { r.run(t, w, fmt.Sprintf("n%d", i)) })
	}
	t.Logf("fault, how it ends, and how long that took:\n%s", strings.Join(lines, "\n"))
}

// up boots through firmware, with a screen, until the node follows the ledger
// and its watchdog is armed.
func (w *world) up(t *testing.T, name string, o qemu.Options) *node {
	t.Helper()
	n := w.disk(t, name, nil, o)
	n.says(0, following)
	n.says(0, `msg="watchdog armed"`)
	return n
}

// quick does the same without firmware.
func (w *world) quick(t *testing.T, name string, o qemu.Options) *node {
	t.Helper()
	n := w.direct(t, name, nil, o)
	n.says(0, following)
	n.says(0, `msg="watchdog armed"`)
	return n
}

// recorded checks what the boot after a death says and records.
func (n *node) recorded(name, kind, why string) {
	n.t.Helper()
	n.says(0, `an earlier boot of this machine ended badly.*kind=`+kind)
	r := n.w.incident(n.t, name, kind)
	if !strings.Contains(r.Incident.Detail, why) {
		n.t.Errorf("the ledger does not know of %q:\n%s", why, r.Incident.Detail)
	}
	n.says(0, `the ledger knows what happened to this node.*kind=`+kind)
	if left := n.do(map[string]any{"do": "list", "file": "/sys/fs/pstore/*"})["files"]; left != nil {
		n.t.Errorf("still stored: %v", left)
	}
}

// initPanics: a panic in one of init's loops stops the node with a screen, on
// both kinds of console, and starts the machine again in order.
func initPanics(t *testing.T, w *world, name string) {
	n := w.up(t, name, qemu.Options{Screen: true})
	font := n.font()
	n.do(map[string]any{"do": "init", "name": "usr1"})
	m := n.says(0, `ZOS STOPPED  \[PANIC\]`)
	m = n.says(m, `a panic on purpose`)
	n.says(m, `what to do`)
	n.shows(font, "ZOS STOPPED  [PANIC]", "what failed:", "a panic on purpose", "what to do:", "The machine starts again")
	n.again().recorded(name, "node-stopped", "PANIC: a fault in init: a panic on purpose")
}

// shows waits until the screen, as a camera would see it, has all the texts.
func (n *node) shows(font letters, texts ...string) {
	n.t.Helper()
	text := ""
	for ctx := deadline(n.t); ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
		text = font.read(n.shot())
		missing := 0
		for _, want := range texts {
			if !strings.Contains(text, want) {
				missing++
			}
		}
		if missing == 0 {
			return
		}
	}
	n.t.Fatalf("the screen never shows %q, but\n%s", texts, text)
}

// initDies: Go's runtime ends PID 1, the kernel panics, keeps its log and starts
// the machine again; the next boot knows why.
func initDies(t *testing.T, w *world, name string) {
	n := w.up(t, name, qemu.Options{Screen: true})
	font := n.font()
	n.do(map[string]any{"do": "init", "name": "quit"})
	n.says(0, `Kernel panic - not syncing: Attempted to kill init!`)
	n.shows(font, "Kernel panic - not syncing: Attempted to kill init!")
	n.again().recorded(name, "node-panic", "SIGQUIT: quit")
}

// initHangs: PID 1 does nothing any more, so nobody feeds the watchdog, which
// resets the machine and remembers that it did.
func initHangs(t *testing.T, w *world, name string) {
	n := w.quick(t, name, qemu.Options{Restart: true})
	n.do(map[string]any{"do": "freeze"})
	m := n.Console.Mark()
	m = n.says(m, `rig: QEMU says WATCHDOG, action reset`)
	n.says(m, `an earlier boot of this machine ended badly.*kind=watchdog-reset`)
	n.says(m, following) // which may come first
	w.incident(t, name, "watchdog-reset")
}

// agentDies: the node starts it again, and it says itself what happened.
func agentDies(t *testing.T, n *node, name string) {
	before := n.process("agent")
	m := n.Console.Mark()
	n.do(map[string]any{"do": "quit", "name": "agent"})
	m = n.says(m, `msg="program ended; it is started again".*why="exit code 2"`)
	n.says(m, following)
	if after := n.process("agent"); after == before || after == 0 {
		t.Errorf("the agent was %d and is %d", before, after)
	}
	r := n.w.incident(t, name, "agent-ended")
	if !strings.Contains(r.Incident.Detail, "exit code 2") {
		t.Errorf("the ledger does not know how:\n%s", r.Incident.Detail)
	}
}

// agentHangs: it is ended after a minute without a heartbeat, and started again.
func agentHangs(t *testing.T, n *node, name string) {
	m := n.Console.Mark()
	n.do(map[string]any{"do": "stop", "name": "agent"})
	m = n.says(m, `msg="program is ended".*no heartbeat for`)
	n.says(m, following)
	n.w.incident(t, name, "agent-ended")
}

// agentHangsForEver: starting it again does not help, so the machine starts
// again, in order, and with another image it says why.
func agentHangsForEver(t *testing.T, w *world, name string) {
	standin, err := image.Program{Package: "github.com/zos-node/zos/qemu/standin"}.Build(context.Background(), repo)
	if err != nil {
		t.Fatal(err)
	}
	n := w.disk(t, name, files{"bin/agent": standin, "etc/zos/standin": []byte("hang"), "etc/zos/patience": []byte("75s")}, qemu.Options{Screen: true})
	m := n.says(0, `standin: started`)
	m = n.says(m, `msg="program is ended".*no heartbeat for`)
	m = n.says(m, `standin: started`) // again, and it hangs again
	m = n.says(m, `ZOS STOPPED  \[AGENT\]`)
	n.says(m, `it has said nothing for`)
	n.o.Disk = filepath.Join(w.image, image.MediumDisk)
	n.again().recorded(name, "node-stopped", "AGENT: the agent: it has said nothing for")
}

// memoryRunsOut: the kernel ends whoever takes it, not the agent.
func memoryRunsOut(t *testing.T, n *node, name string) {
	before := n.process("agent")
	ended := n.do(map[string]any{"do": "eat"})["ended"]
	if ended != "signal: killed" {
		t.Errorf("what took all memory ended with %v", ended)
	}
	n.says(0, `memory ran out and the kernel ended a program.*which="?Out of memory: Killed process \d+ \(fault\)`)
	if after := n.process("agent"); after != before {
		t.Errorf("the agent was %d and is %d", before, after)
	}
	n.w.incident(t, name, "memory-full")
}

// storageIsFull: the node says so, goes on, and goes on well once there is room.
func storageIsFull(t *testing.T, n *node, name string) {
	m := n.Console.Mark()
	if got := n.do(map[string]any{"do": "fill", "file": "/run/filler"})["bytes"].(float64); got < 1<<20 {
		t.Errorf("only %v bytes were written", got)
	}
	m = n.says(m, `the node's storage is full: 0 of \d+ MiB are free`)
	n.do(map[string]any{"do": "remove", "file": "/run/filler"})
	n.says(m, `there is room for files again`)
	n.w.incident(t, name, "storage-full")
	// It still does its work: an agent that starts now keeps what it has to, and
	// follows.
	m = n.Console.Mark()
	n.do(map[string]any{"do": "quit", "name": "agent"})
	n.says(m, following)
}

// noClock: a machine without a real-time clock has the ledger's time.
func noClock(t *testing.T, w *world, name string) {
	a := qemu.Probe(context.Background(), qemu.Binary)
	for i, arg := range a.Args {
		if arg == "q35" {
			a.Args = append([]string{}, a.Args...)
			a.Args[i] = "microvm,acpi=on,rtc=off,pcie=on"
		}
	}
	n := w.direct(t, name, nil, qemu.Options{Accel: a})
	n.says(0, following)
	if clocks := n.do(map[string]any{"do": "list", "file": "/sys/class/rtc/*"})["files"]; clocks != nil {
		t.Errorf("the machine has a clock: %v", clocks)
	}
	n.timeIsRight()
}

// clockIn2100: a clock that cannot be right is not believed.
func clockIn2100(t *testing.T, n *node, _ string) {
	if date := n.file("/sys/class/rtc/rtc0/date"); !strings.HasPrefix(date, "2100-01-01") {
		t.Errorf("the machine's clock shows %s", date)
	}
	n.says(0, `the clock cannot be right`)
	n.timeIsRight()
}

// timeIsRight: a line that the node writes now carries the time of now.
func (n *node) timeIsRight() {
	n.t.Helper()
	m := n.Console.Mark()
	n.do(map[string]any{"do": "quit", "name": "agent"})
	line, _, m, err := n.Console.Expect(deadline(n.t), m, regexp.MustCompile(`^time=.*program ended; it is started again`))
	if err != nil {
		n.t.Fatal(err)
	}
	stamp, _, _ := strings.Cut(strings.TrimPrefix(line.Text, "time="), " ")
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil || time.Since(at).Abs() > time.Hour {
		n.t.Errorf("the node takes now for %s: %v", stamp, err)
	}
	n.says(m, following)
}

// noSerialPort: nothing is written there, nothing waits for it; the screen has
// it all.
func noSerialPort(t *testing.T, w *world, name string) {
	n := w.direct(t, name, nil, qemu.Options{NoSerial: true, Screen: true})
	font := n.fontWhenUp()
	n.shows(font, "zos  "+name, "10.0.2.15/24", "entries, ledger time", "Press Enter for the menu")
	if active := strings.TrimSpace(n.file("/sys/class/tty/console/active")); active != "tty0" {
		t.Errorf("consoles: %s", active)
	}
	for _, l := range n.Console.Lines(0) {
		if !strings.HasPrefix(l.Text, "rig:") && l.Text != "" {
			t.Errorf("something came from a serial port: %s", l.Text)
		}
	}
}

// fontWhenUp waits for the fault program of a machine that has no serial port
// to say that it is there.
func (n *node) fontWhenUp() letters {
	n.t.Helper()
	ctx := deadline(n.t)
	for n.Fault(ctx, map[string]any{"do": "list", "file": "/init"}, nil) != nil {
		if ctx.Err() != nil {
			n.t.Fatal("the node does not come up")
		}
		time.Sleep(time.Second)
	}
	return n.font()
}

// littleMemory: a full node in 512 MB.
func littleMemory(t *testing.T, w *world, name string) {
	n := w.quick(t, name, qemu.Options{MemoryMiB: 512})
	n.says(0, `msg=capacity.*memoryMiB=\d+`)
	s := n.do(map[string]any{"do": "stat"})
	if total := s["memTotalKiB"].(float64); total > 512*1024 {
		t.Errorf("the machine has %v KiB", total)
	}
	t.Logf("of %v KiB, %v KiB are free for guests and files", s["memTotalKiB"], s["memAvailableKiB"])
}
