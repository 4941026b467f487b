// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/qemu"
)

// survivor is a machine for the faults that a node outlives, one after the
// other. It has a disk, and so keeps its state.
func survivor(t *testing.T, w *world) (n *node, font letters) {
	n = w.up(t, survivorName, qemu.Options{Screen: true, UEFI: &qemu.UEFI{Write: true}})
	return n, n.font()
}

const survivorName = "survivor"

// survived are those faults.
var survived = []struct {
	fault string
	ends  string
	run   func(t *testing.T, n *node, font letters)
}{
	{"agent dies", "started again, record", agentDies},
	{"memory runs out", "runs on, record", memoryRunsOut},
	{"storage is full", "runs on, record", storageIsFull},
	{"disk is full", "runs on, record", diskIsFull},
	{"agent hangs", "started again, record", agentHangs},
	{"menu", "reset: another node after it", menu},
}

// agentDies: the node starts it again, and it says itself what happened.
func agentDies(t *testing.T, n *node, font letters) {
	before := n.process("agent")
	m := n.Console.Mark()
	n.do(map[string]any{"do": "quit", "name": "agent"})
	m = n.says(m, `msg="program ended; it is started again".*why="exit code 2"`)
	n.says(m, following)
	if after := n.process("agent"); after == before || after == 0 {
		t.Errorf("the agent was %d and is %d", before, after)
	}
	n.w.incident(t, survivorName, "agent-ended", "exit code 2", "SIGQUIT: quit")
	n.shows(font, "zos  "+survivorName, "entries, ledger time") // it runs
}

// agentHangs: it is ended after a minute without a heartbeat, and started again.
func agentHangs(t *testing.T, n *node, font letters) {
	m := n.Console.Mark()
	n.do(map[string]any{"do": "stop", "name": "agent"})
	// The screen shows it as well, for less than a minute: a slow machine may miss it.
	n.says(m, `agent +runs, but says nothing of its state`)
	m = n.says(m, `msg="program is ended".*no heartbeat for`)
	n.says(m, following)
	n.w.incident(t, survivorName, "agent-ended", "no heartbeat for")
	n.shows(font, "entries, ledger time")
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
	font := n.font()
	m = n.says(m, `msg="program is ended".*no heartbeat for`)
	m = n.says(m, `standin: started`) // again, and it hangs again
	m = n.says(m, `ZOS STOPPED  \[AGENT\]`)
	m = n.says(m, `it has said nothing for`)
	n.says(m, `what to do`)
	n.shows(font, "ZOS STOPPED  [AGENT]", "it has said nothing for", "what to do:", "The machine starts again")
	n.o.Disk = filepath.Join(w.image, image.MediumDisk)
	n.again().recorded(name, "node-stopped", "AGENT: the agent: it has said nothing for")
}

// memoryRunsOut: the kernel ends whoever takes it, not the agent.
func memoryRunsOut(t *testing.T, n *node, font letters) {
	before := n.process("agent")
	ended := n.do(map[string]any{"do": "eat"})["ended"]
	if ended != "signal: killed" {
		t.Errorf("what took all memory ended with %v", ended)
	}
	n.says(0, `memory ran out and the kernel ended a program.*which="?Out of memory: Killed process \d+ \(fault\).*do="give the machine more memory`)
	if after := n.process("agent"); after != before {
		t.Errorf("the agent was %d and is %d", before, after)
	}
	n.shows(font, "TROUBLE", "memory ran out")
	n.w.incident(t, survivorName, "memory-full")
}

// storageIsFull: the node says so, goes on, and goes on well once there is room.
func storageIsFull(t *testing.T, n *node, font letters) {
	m := n.Console.Mark()
	if got := n.do(map[string]any{"do": "fill", "file": "/run/filler"})["bytes"].(float64); got < 1<<20 {
		t.Errorf("only %v bytes were written", got)
	}
	m = n.says(m, `the node's storage is full: \d+ of \d+ MiB are free.*do="stop a deployment`)
	n.shows(font, "TROUBLE", "the node's storage is full")
	n.do(map[string]any{"do": "remove", "file": "/run/filler"})
	n.says(m, `there is room for files again`)
	n.w.incident(t, survivorName, "storage-full")
	n.worksOn()
}

// diskIsFull: what the node must remember of the ledger it cannot write any more,
// so it believes nothing newer, and says so, until there is room.
func diskIsFull(t *testing.T, n *node, font letters) {
	m := n.Console.Mark()
	if got := n.do(map[string]any{"do": "fill", "file": "/run/zos/kept/filler"})["bytes"].(float64); got < 8<<20 {
		t.Errorf("only %v bytes were written", got)
	}
	m = n.says(m, `the node's state partition is full: \d+ of \d+ MiB are free.*do="report this`)
	n.shows(font, "TROUBLE", "the node's state partition is full")
	// The report of it is new on the ledger.
	m = n.says(m, `msg="ledger refused" .*kind=not-kept .*no space left on device`)
	n.do(map[string]any{"do": "remove", "file": "/run/zos/kept/filler"})
	n.says(m, `there is room for files again.*in=/run/zos/kept`)
	n.says(m, following) // which may come first
	n.w.incident(t, survivorName, "storage-full", "state partition")
	n.worksOn()
}

// worksOn: an agent that starts now keeps what it has to, and follows.
func (n *node) worksOn() {
	n.t.Helper()
	m := n.Console.Mark()
	n.do(map[string]any{"do": "quit", "name": "agent"})
	n.says(m, following)
}

// noSerialPort: nothing is written there, nothing waits for it; the screen has
// it all.
func noSerialPort(t *testing.T, w *world, name string) {
	n := w.direct(t, name, nil, qemu.Options{NoSerial: true, Screen: true})
	font := n.font()
	n.shows(font, "zos  "+name, "10.0.2.15/24", "entries, ledger time", "Press Enter for the menu")
	// The kernel writes to a port of that name all the same: there is no chip.
	for _, port := range strings.Split(n.file("/proc/tty/driver/serial"), "\n") {
		if _, chip, ok := strings.Cut(port, "uart:"); ok && !strings.HasPrefix(chip, "unknown") {
			t.Errorf("the machine has a serial port: %s", port)
		}
	}
	for _, l := range n.Console.Lines(0) {
		if !strings.HasPrefix(l.Text, "rig:") && l.Text != "" {
			t.Errorf("something came from a serial port: %s", l.Text)
		}
	}
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
