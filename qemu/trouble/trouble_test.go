// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/qemu"
)

// row is one fault. run puts it in, shows that it was there, and what came of it.
type row struct {
	fault string
	ends  string // how it has to end
	run   func(t *testing.T, w *world, name string)
}

var table = []row{
	{"no serial port", "runs, told by the screen", noSerialPort},
	{"512 MB of memory", "runs", littleMemory},
	{"nobody there", "waits, and nothing waits for that", nobodyThere},
	{"voucher used up", "outside, told by the panel", voucherUsedUp},
	{"voucher expired", "outside, told by the panel", voucherExpired},
	{"init panics", "screen, restart, record", initPanics},
	{"init dies", "kernel panic, restart, record", initDies},
	{"init hangs", "reset by the watchdog, record", initHangs},
	{"agent hangs for ever", "screen, restart, record", agentHangsForEver},
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
	for i, r := range table {
		row(t, r.fault, r.ends, func(t *testing.T) { r.run(t, w, fmt.Sprintf("n%d", i)) })
	}
	t.Run("survived", func(t *testing.T) {
		n, font := survivor(t, w)
		for _, s := range survived {
			row(t, s.fault, s.ends, func(t *testing.T) { s.run(t, &node{n.Machine, t, w, n.o}, font) })
		}
	})
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
	n.w.incident(n.t, name, kind, why)
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
