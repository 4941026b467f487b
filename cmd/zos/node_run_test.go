// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/qemu"
)

// TestForwardTaken: which port, and what to do, before anything is started.
func TestForwardTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	_, errs := zos(t, exitFailed, "node", "run", file(t, "none.img", nil), "--forward", port+":80")
	contains(t, errs, "127.0.0.1:"+port, "cannot be listened on", "--forward HOSTPORT:PORT")
}

// TestMachineFor: the image says on which emulator it runs.
func TestMachineFor(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		name := filepath.Join(t.TempDir(), "node.img")
		if err := (image.Disk{ESPMiB: 64, Boot: image.Boot{Arch: arch, Version: "1", Loader: []byte("loader"), UKI: []byte("uki")}}).Write(name); err != nil {
			t.Fatal(err)
		}
		o := machineFor(t.Context(), name)
		if arm := arch == "arm64"; o.Disk != name || (o.Arch == "arm64") != arm || (o.UEFI != nil) != arm || o.Accel.Name == "" {
			t.Errorf("%s: %+v", arch, o)
		}
	}
	if o := machineFor(t.Context(), file(t, "none.img", nil)); o.Arch != "" {
		t.Errorf("no image at all: %+v", o)
	}
}

// TestNothingStays: however zos node run is ended, also by its terminal that
// closes, no emulator and no folder is left.
func TestNothingStays(t *testing.T) {
	if _, err := exec.LookPath(qemu.Binary); err != nil {
		t.Skipf("SKIP node run: no %s", qemu.Binary)
	}
	disk := file(t, "none.img", make([]byte, 1<<20)) // nothing boots from it
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0], "node", "run", disk, "--memory", "64")
			cmd.Env = append(os.Environ(), "ZOS_TEST_RUN=1", "TMPDIR="+dir)
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &said, &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			gone := make(chan error, 1)
			go func() { gone <- cmd.Wait() }()
			for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
				if rigs, err := filepath.Glob(filepath.Join(dir, "zos-rig-*", "qmp")); err != nil || len(rigs) > 0 {
					break
				}
				if time.Now().After(end) {
					t.Fatal("no machine was started")
				}
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-gone:
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
					t.Errorf("%v\n%s", err, said.String())
				}
			case <-time.After(2 * time.Minute):
				t.Fatalf("%s does not end it", sig)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// deaf is a machine that hears its button only when it is pressed for the nth
// time, as one whose driver is not loaded yet.
type deaf struct {
	presses, hears int
	off            chan struct{}
}

func (d *deaf) PowerButton(context.Context) error {
	if d.presses++; d.presses == d.hears {
		close(d.off)
	}
	return nil
}

func (d *deaf) Done() <-chan struct{} { return d.off }

func (d *deaf) Wait(ctx context.Context) error {
	select {
	case <-d.off:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestPressedAgain: a press that came too early for the node is no last one.
func TestPressedAgain(t *testing.T) {
	again := make(chan time.Time, 9)
	for range cap(again) {
		again <- time.Time{}
	}
	d := &deaf{hears: 3, off: make(chan struct{})}
	if err := pressUntilOff(t.Context(), d, again); err != nil || d.presses < 3 {
		t.Errorf("pressed %d times, %v", d.presses, err)
	}
	d = &deaf{hears: -1, off: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pressUntilOff(ctx, d, nil); !errors.Is(err, context.Canceled) || d.presses != 1 {
		t.Errorf("a node that does not end: pressed %d times, %v", d.presses, err)
	}
}

// TestNoLedgerGuessed: help shows no default for a flag that has to be given.
func TestNoLedgerGuessed(t *testing.T) {
	t.Setenv("ZOS_LEDGER", "")
	for _, name := range []string{"capacity", "incidents"} {
		if out, _ := zos(t, exitOK, "node", name, "--help"); strings.Contains(out, "default [http") {
			t.Errorf("node %s: %s", name, out)
		}
	}
	if out, _ := zos(t, exitOK, "status", "--help"); !strings.Contains(out, "default [http") {
		t.Error("where there is a default, the help does not show it")
	}
}
