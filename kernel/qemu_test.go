// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDebianQEMURuns starts the second driver's program in a folder that
// holds nothing but what would stand in the image.
func TestDebianQEMURuns(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIP Debian's QEMU in a folder of its own: needs root for chroot")
	}
	var said bytes.Buffer
	s, err := Open(Options{Cache: "../build/cache/debian", Lock: "debian.lock", WorkLock: filepath.Join(t.TempDir(), "work"), Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.DebianQEMU(context.Background())
	if err != nil {
		t.Skipf("SKIP Debian's QEMU in a folder of its own: %v", err)
	}
	if strings.Contains(said.String(), "the image") {
		t.Errorf("whether an image gets it is not known here, a lock is made with it too: %s", said.String())
	}
	root := t.TempDir()
	for _, f := range h.Files {
		if f.Link != "" {
			t.Fatalf("%s is a link: one file per library was expected", f.Path)
		}
		if err := writeFile(filepath.Join(root, f.Path), f.Data, os.FileMode(f.Mode)); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		cmd := exec.Command(h.Path, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Pdeathsig: syscall.SIGKILL}
		cmd.Dir, cmd.Env = "/", nil
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s %v: %v\n%s", h.Path, args, err, out.String())
		}
		return out.String()
	}
	if v := run("--version"); !strings.Contains(v, "QEMU emulator version") {
		t.Errorf("it says %q", v)
	}
	devices := run("-M", "microvm", "-device", "help")
	for _, d := range []string{"virtio-blk-pci", "virtio-net-pci", "vhost-vsock-pci", "virtio-rng-pci", "pvpanic-pci"} {
		if !strings.Contains(devices, `"`+d+`"`) {
			t.Errorf("no device %s", d)
		}
	}
	if h.Source != "debian" || h.Name != "qemu" || h.Digest != "sha256:"+hexSum(h.find(t).Data) {
		t.Errorf("%+v", h)
	}
}

func (h Hypervisor) find(t *testing.T) File {
	t.Helper()
	for _, f := range h.Files {
		if f.Path == h.Path {
			return f
		}
	}
	t.Fatalf("no file %s", h.Path)
	return File{}
}
