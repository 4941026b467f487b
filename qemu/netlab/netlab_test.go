// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/kernel/kmod"
	"github.com/zos-node/zos/kernel/modules"
	"github.com/zos-node/zos/qemu"
)

const wanted = "^(TestLACP|TestFromBondToPlain|TestActiveBackupOnVLAN)$"

// TestInNodeKernel runs the tests of bonds and VLANs of agent/uplink on the
// node's kernel. None of them may skip there.
func TestInNodeKernel(t *testing.T) {
	if os.Getenv("ZOS_NETLAB") == "" {
		t.Skip("SKIP TestInNodeKernel: bonds and VLANs on the node's kernel take minutes under emulation; run it with ZOS_NETLAB=1 go test ./qemu/netlab")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 9*time.Minute)
	defer cancel()
	dir := t.TempDir()
	machine := qemu.Options{Accel: qemu.Probe(ctx, qemu.Binary), MemoryMiB: 1024, Kernel: filepath.Join(dir, "vmlinuz"), Initrd: filepath.Join(dir, "initrd"),
		Cmdline: "console=ttyS0 quiet panic=-1", Log: os.Getenv("ZOS_NETLAB_LOG")}
	initramfs(ctx, t, machine)
	m, err := qemu.Boot(ctx, machine, regexp.MustCompile(verdict))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := m.Wait(ctx); err != nil { // the machine turns itself off
		t.Error(err)
	}
	all := m.Console.Tail(100_000)
	if !strings.Contains(all, verdict+"ok") || strings.Contains(all, "--- SKIP") || strings.Count(all, "--- PASS: Test") < 3 {
		t.Errorf("on the node's kernel:\n%s", all)
	}
	for _, line := range strings.Split(all, "\n") {
		if strings.Contains(line, "--- ") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// initramfs writes kernel and initramfs: the two programs, Debian's ip and
// dnsmasq with the libraries of this machine, and the modules.
func initramfs(ctx context.Context, t *testing.T, o qemu.Options) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	board, err := boards.Load("qemu-x86_64")
	check(err)
	cache := filepath.Join("..", "..", "build", "cache", "debian")
	parts, err := kernel.Open(kernel.Options{Cache: cache, Lock: "../../kernel/debian.lock", WorkLock: filepath.Join(t.TempDir(), "lock"), Arch: board.Arch,
		Log: slog.New(slog.DiscardHandler)})
	check(err)
	k, err := parts.Linux(ctx, board.Kernel)
	check(err)
	var wants []modules.Want
	for _, name := range []string{"af_packet", "veth", "bridge", "8021q", "bonding", "button"} {
		wants = append(wants, modules.Want{Name: name, Optional: name == "af_packet" || name == "button", Load: true})
	}
	chosen, err := k.Tree.Choose(modules.Set{Name: "netlab", Wants: wants})
	check(err)
	tree := image.NewTree()
	for _, d := range []string{"proc", "sys", "run", "tmp", "etc"} {
		tree.Dir(d, 0o755)
	}
	for i, x := range chosen {
		tree.File(fmt.Sprintf("%s/%03d-%s.ko", moduleDir[1:], i, x.Name), 0o644, kmod.Unsigned(x.Data))
	}
	build := func(args ...string) []byte {
		t.Helper()
		out := filepath.Join(t.TempDir(), "program")
		cmd := exec.CommandContext(ctx, "go", append(append(args[:len(args)-1:len(args)-1], "-o", out), args[len(args)-1])...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		b, err := os.ReadFile(out)
		check(err)
		return b
	}
	tree.File("init", 0o755, build("build", "."))
	tree.File(testPath[1:], 0o755, build("test", "-c", "../../agent/uplink"))
	tree.File(argPath[1:], 0o644, []byte(wanted))
	tree.File("etc/passwd", 0o644, []byte("root:x:0:0::/:/\n"))
	tree.File("etc/group", 0o644, []byte("root:x:0:\n"))
	for _, program := range []string{"ip", "dnsmasq"} {
		path, err := exec.LookPath(program)
		check(err)
		real, err := filepath.EvalSymlinks(path)
		check(err)
		b, err := os.ReadFile(real)
		check(err)
		tree.File("usr/bin/"+program, 0o755, b)
		libs, err := exec.CommandContext(ctx, "ldd", real).Output()
		check(err)
		for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(string(libs), -1) {
			name := "lib64/" + filepath.Base(lib)
			if tree.Has(name) {
				continue
			}
			b, err := os.ReadFile(lib)
			check(err)
			tree.File(name, 0o755, b)
		}
	}
	cpio, err := tree.CPIO()
	check(err)
	check(os.WriteFile(o.Kernel, k.Image, 0o600))
	check(os.WriteFile(o.Initrd, cpio, 0o600))
}
