// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/qemu"
)

// initLimitKiB is the budget of PID 1's resident memory.
const initLimitKiB = 12 << 10

// eduSlot is where QEMU's device for teaching stands on the PCI bus.
const eduSlot = "1d"

// TestInit boots the node's image with a stand-in for the agent.
func TestInit(t *testing.T) {
	dir := initImage(t)
	t.Run("the UKI boots from its disk, a crashing agent gets a back-off, the button ends the machine", func(t *testing.T) {
		agentFails(t, standinNode(t, dir, "crash", "", true))
	})
	t.Run("the button lets the agent end its guests first", func(t *testing.T) {
		endsInOrder(t, standinNode(t, dir, "obey", "", false))
	})
	t.Run("the agent asks for a new start", func(t *testing.T) {
		n := standinNode(t, dir, "reboot", "", false)
		_, m := n.says(t, 0, `msg="agent asks for the end".*how=reboot`)
		n.says(t, m, `msg="the machine ends now".*how=reboot`)
		n.ended(t)
	})
	t.Run("a panic of the agent is on the console", func(t *testing.T) {
		n := standinNode(t, dir, "panic", "", false)
		_, m := n.says(t, 0, `panic: standin: a panic on purpose`)
		n.says(t, m, `msg="program ended; it is started again".*why="exit code 2"`)
	})
	t.Run("the serial line has a menu without a shell; a panic of init is a screen", func(t *testing.T) {
		initPanics(t, standinNode(t, dir, "obey", "", false))
	})
	t.Run("words on the command line that nobody allowed", func(t *testing.T) {
		n := standinNode(t, dir, "obey", " init=/bin/sh rescue", false)
		_, m := n.says(t, 0, `ZOS STOPPED  \[CMDLINE\]`)
		_, m = n.says(t, m, `init=/bin/sh rescue`)
		n.says(t, m, `what to do`)
		for _, l := range n.Console.Lines(0) {
			if l.Text == "standin: started" {
				t.Error("the agent was started all the same")
			}
		}
	})
}

// initImage builds a test image once, without a hypervisor.
func initImage(t *testing.T) string {
	t.Helper()
	board, err := boards.Load("qemu-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	parts, err := kernel.Open(kernel.Options{
		Cache: filepath.Join(repo, "build/cache/debian"), Lock: filepath.Join(repo, "kernel/debian.lock"),
		WorkLock: filepath.Join(repo, "build/debian.lock"), Arch: board.Arch, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, err = image.Build(context.Background(), image.Request{
		Board: board, Source: repo, Parts: parts, Root: []byte("{}"), Faults: true, Out: dir, Guest: filepath.Join(dir, "guest"), Log: log,
		Hypervisor: func(context.Context, *kernel.Source) (kernel.Hypervisor, error) {
			return kernel.Hypervisor{Name: "none", Source: "test"}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// standinNode boots the image of dir with the stand-in as its agent, from the
// disk or, which is faster, without firmware.
func standinNode(t *testing.T, dir, behaviour, words string, disk bool) *node {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "node.uki"))
	if err != nil {
		t.Fatal(err)
	}
	uki, err := image.ReadUKI(b)
	if err != nil {
		t.Fatal(err)
	}
	standin, err := image.Program{Package: "github.com/zos-node/zos/qemu/standin"}.Build(context.Background(), repo)
	if err != nil {
		t.Fatal(err)
	}
	patch := image.Patch()
	patch.File("bin/agent", 0o755, standin)
	patch.File("etc/zos/standin", 0o644, []byte(behaviour))
	if uki.Initrd, err = image.Appended(uki.Initrd, patch); err != nil {
		t.Fatal(err)
	}
	own := t.TempDir()
	// A device for teaching, which no driver takes.
	o := qemu.Options{Accel: qemu.Probe(context.Background(), qemu.Binary), MemoryMiB: 1024, Faults: true, Args: []string{"-device", "edu,addr=" + eduSlot}}
	if disk {
		o.Disk = filepath.Join(own, "node.img")
		diskFrom(t, b, uki, o.Disk)
	} else {
		o.Kernel, o.Initrd, o.Cmdline = filepath.Join(dir, "vmlinuz"), filepath.Join(own, "initrd"), uki.Cmdline+words
		if err := os.WriteFile(o.Initrd, uki.Initrd, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := &node{t: t}
	if n.Machine, err = qemu.Boot(deadline(t), o, qemu.Up); err != nil {
		t.Fatal(err)
	}
	if n.Retries > 0 {
		t.Logf("the emulator broke %d earlier boot; it was tried again", n.Retries)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if err := syscall.Kill(n.PID(), 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("QEMU is still there after Close: %v", err)
		}
		if t.Failed() {
			t.Logf("end of the console:\n%s", n.Console.Tail(60))
		}
		if n.EmulatorFault() {
			t.Logf("EMULATOR FAULT in %s: the outer kernel died of a race in the emulator, not of zos", strings.SplitN(t.Name(), "/", 2)[0])
		}
	})
	return n
}

// diskFrom makes a disk image of a changed UKI. Its stub is the image's own.
func diskFrom(t *testing.T, built []byte, uki image.UKI, name string) {
	t.Helper()
	parts, err := kernel.Open(kernel.Options{
		Cache: filepath.Join(repo, "build/cache/debian"), Lock: filepath.Join(repo, "kernel/debian.lock"),
		WorkLock: filepath.Join(repo, "build/debian.lock"), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	efi, err := parts.EFI(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	uki.Stub = efi.Stub
	b, err := uki.Build()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) <= len(built) {
		t.Fatalf("the changed UKI is not larger: %d and %d bytes", len(b), len(built))
	}
	if err := (image.Disk{ESPMiB: 64, Boot: image.Boot{Arch: "amd64", Version: image.Version, Loader: efi.Loader, UKI: b}}).Write(name); err != nil {
		t.Fatal(err)
	}
}

// ended waits for the machine to be off.
func (n *node) ended(t *testing.T) {
	t.Helper()
	if err := n.Wait(deadline(t)); err != nil {
		t.Fatal(err)
	}
}

func agentFails(t *testing.T, n *node) {
	_, m := n.says(t, 0, `msg="program started".*program=/bin/agent`)
	_, m = n.says(t, m, `^standin: the reason is that I was told to`)
	for _, wait := range []string{"1s", "2s", "4s"} {
		_, m = n.says(t, m, `msg="program ended; it is started again".*program=/bin/agent.*why="exit code 7".*wait=`+wait)
		_, m = n.says(t, m, `msg="its last words".*the reason is that I was told to`)
	}
	// The button works once its driver is loaded, which the watchdog's line follows.
	n.says(t, 0, `msg="watchdog armed"`)
	n.says(t, 0, `msg="PCI devices that no driver of this image takes".*[" \[]0000:00:`+eduSlot+`\.0 00ff00 1234:11e8`)
	found := false
	for _, p := range n.stat(t).Processes {
		if p.PID == 1 {
			found = true
			t.Logf("init: %d KiB resident", p.RSSKiB)
			if p.RSSKiB > initLimitKiB {
				t.Errorf("init takes %d KiB, limit %d", p.RSSKiB, initLimitKiB)
			}
		}
	}
	if !found {
		t.Error("the fault program does not see PID 1")
	}
	if err := n.PowerButton(deadline(t)); err != nil {
		t.Fatal(err)
	}
	_, m = n.says(t, m, `msg="power button pressed"`)
	n.says(t, m, `msg="the machine ends now".*how=poweroff`)
	n.ended(t)
}

func initPanics(t *testing.T, n *node) {
	n.says(t, 0, `msg="watchdog armed"`)
	for _, typed := range [][2]string{{"", `What to do\?`}, {"sh", `What to do\?`}, {"2", `What recovery needs`}, {"5", `To go on, type:  reset this node`}, {"yes", `Nothing was reset`}} {
		m := n.Console.Mark()
		if err := n.Type(typed[0]); err != nil {
			t.Fatal(err)
		}
		n.says(t, m, typed[1])
	}
	n.fault(t, map[string]any{"do": "init", "name": "usr1"}, nil)
	_, m := n.says(t, 0, `ZOS STOPPED  \[PANIC\]`)
	_, m = n.says(t, m, `a fault in init: a panic on purpose`)
	_, m = n.says(t, m, `what to do`)
	n.says(t, m, `The machine starts again in`)
}

func endsInOrder(t *testing.T, n *node) {
	_, m := n.says(t, 0, `^standin: started`)
	_, m = n.says(t, m, `msg="watchdog armed"`)
	if err := n.PowerButton(deadline(t)); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`msg="power button pressed"`, `^standin: init says shutdown`, `^standin: guests have ended`, `msg="the machine ends now".*how=poweroff`,
	} {
		_, m = n.says(t, m, line)
	}
	n.ended(t)
}
