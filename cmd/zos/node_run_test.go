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
	"github.com/zos-node/zos/image/imagetest"
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
	_, errs := zos(t, exitFailed, "node", "run", smallImage(t), "--forward", port+":80")
	contains(t, errs, "127.0.0.1:"+port, "cannot be listened on", "--forward HOSTPORT:PORT")
}

// TestMachineFor: the image says on which emulator it runs.
func TestMachineFor(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		name := filepath.Join(t.TempDir(), "node.img")
		if err := (image.Disk{ESPMiB: 64, Boot: image.Boot{Arch: arch, Version: "1", Loader: []byte("loader"), UKI: []byte("uki")}}).Write(name); err != nil {
			t.Fatal(err)
		}
		got, err := bootable(name)
		if err != nil || got != arch {
			t.Fatalf("%s: %q, %v", arch, got, err)
		}
		o := machineFor(t.Context(), got, name)
		if arm := arch == "arm64"; o.Disk != name || (o.Arch == "arm64") != arm || (o.UEFI != nil) != arm || o.Accel.Name == "" {
			t.Errorf("%s: %+v", arch, o)
		}
	}
}

// TestNoNodeImage: what no firmware boots is not given to one.
func TestNoNodeImage(t *testing.T) {
	large := filepath.Join(t.TempDir(), "node-4k.img")
	if err := (image.Disk{ESPMiB: 260, Sector: 4096, Boot: image.Boot{Arch: "amd64", Version: "1", Loader: []byte("loader"), UKI: []byte("uki")}}).Write(large); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file string
		says []string
	}{
		"a text":           {file(t, "passwd", []byte("root:x:0:0:root:/root:/bin/bash\n")), []string{"not a node image", "want the node.img that zos node build wrote"}},
		"nothing":          {file(t, "empty", nil), []string{"not a node image"}},
		"an empty disk":    {file(t, "disk", make([]byte, 1<<20)), []string{"not a node image"}},
		"a UKI":            {file(t, "node.uki", imagetest.UKI("1.0", "qemu-x86_64", []byte("kernel"))), []string{"is a UKI alone", "node.img"}},
		"sectors of 4 KiB": {large, []string{"sectors of 4096 bytes, the machine's has 512"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, errs := zos(t, exitRefused, "node", "run", c.file)
			contains(t, errs, c.says...)
			if strings.Contains(out+errs, "accelerator") {
				t.Errorf("a machine was looked for: %s%s", out, errs)
			}
		})
	}
}

// TestNothingStays: however zos node run is ended, also by its terminal that
// closes, no emulator and no folder is left.
func TestNothingStays(t *testing.T) {
	if _, err := exec.LookPath(qemu.Binary); err != nil {
		t.Skipf("SKIP node run: no %s", qemu.Binary)
	}
	disk := smallImage(t) // firmware finds a loader on it that is no program
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
