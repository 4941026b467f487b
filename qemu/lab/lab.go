// SPDX-License-Identifier: Apache-2.0

// Package lab makes small test machines of the node's own kernel: an initramfs
// of modules, programs and an init (lab/init), which does what it is told on the
// serial line. In a lab programs have what the machine that builds may lack, such
// as bonds, or disks with serial numbers that may be overwritten. A lab boots
// in seconds, and what runs in it is judged by the test outside.
package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/kernel/kmod"
	"github.com/zos-node/zos/kernel/modules"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/qemu/lab/wire"
)

// Parts are what a lab is made of.
type Parts struct {
	Repo     string            // folder of the source
	Modules  []modules.Want    // loaded in this order, with what they need
	Files    map[string][]byte // programs, by their paths in the lab
	Programs []string          // of this machine, taken into /usr/bin with their libraries
}

// Lab is one that runs.
type Lab struct {
	*qemu.Machine
	t     *testing.T
	limit time.Duration
}

// Start boots one until its init is ready, and ends it with the test. o needs
// neither a kernel nor an initramfs; limit is for the boot and for each command.
func Start(t *testing.T, p Parts, o qemu.Options, limit time.Duration) *Lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	dir := t.TempDir()
	o.Accel = qemu.Probe(ctx, qemu.Binary)
	o.Kernel, o.Initrd, o.Cmdline = filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd"), "console=ttyS0 quiet panic=-1"
	p.write(ctx, t, o)
	up := regexp.MustCompile("^(" + wire.Ready + "|" + wire.Failed + ".*)")
	m, err := qemu.Boot(ctx, o, up)
	if err != nil {
		t.Fatal(err)
	}
	l := &Lab{m, t, limit}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("end of the lab's console:\n%s", m.Console.Tail(60))
		}
	})
	if line, _, _, err := m.Console.Expect(ctx, 0, up); err != nil || line.Text != wire.Ready {
		t.Fatalf("the lab does not come up: %s, %v", line.Text, err)
	}
	return l
}

// Run runs a program to its end and returns what it wrote, and its exit code.
func (l *Lab) Run(args ...string) (string, int) {
	l.t.Helper()
	return l.tell(wire.Command{Run: args})
}

// Must is Run, and wants exit code 0.
func (l *Lab) Must(args ...string) string {
	l.t.Helper()
	out, code := l.Run(args...)
	if code != 0 {
		l.t.Fatalf("in the lab, %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// Mount mounts a file system.
func (l *Lab) Mount(m wire.Mount) {
	l.t.Helper()
	if out, code := l.tell(wire.Command{Mount: &m}); code != 0 {
		l.t.Fatalf("in the lab: %s", out)
	}
}

// Unmount takes one away.
func (l *Lab) Unmount(at string) {
	l.t.Helper()
	if out, code := l.tell(wire.Command{Unmount: at}); code != 0 {
		l.t.Fatalf("in the lab, unmount %s: %s", at, out)
	}
}

// Off turns the machine off, and waits for that.
func (l *Lab) Off() {
	l.t.Helper()
	l.send(wire.Command{Off: true})
	ctx, cancel := context.WithTimeout(context.Background(), l.limit)
	defer cancel()
	if err := l.Wait(ctx); err != nil {
		l.t.Fatal(err)
	}
}

func (l *Lab) send(c wire.Command) {
	l.t.Helper()
	line, err := json.Marshal(c)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.Type(string(line)); err != nil {
		l.t.Fatal(err)
	}
}

var exited = regexp.MustCompile(`^` + wire.Exit + ` (-?\d+)$`)

func (l *Lab) tell(c wire.Command) (string, int) {
	l.t.Helper()
	from := l.Console.Mark()
	l.send(c)
	ctx, cancel := context.WithTimeout(context.Background(), l.limit)
	defer cancel()
	_, groups, to, err := l.Console.Expect(ctx, from, exited)
	if err != nil {
		l.t.Fatal(err)
	}
	code, err := strconv.Atoi(groups[1])
	if err != nil {
		l.t.Fatal(err)
	}
	var b strings.Builder
	for _, line := range l.Console.Lines(from)[:to-from-1] {
		b.WriteString(line.Text + "\n")
	}
	return strings.TrimSpace(b.String()), code
}

// write makes kernel and initramfs.
func (p Parts) write(ctx context.Context, t *testing.T, o qemu.Options) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	board, err := boards.Load("qemu-x86_64")
	check(err)
	parts, err := kernel.Open(kernel.Options{Cache: filepath.Join(p.Repo, "build/cache/debian"), Lock: filepath.Join(p.Repo, "kernel/debian.lock"),
		WorkLock: filepath.Join(t.TempDir(), "lock"), Arch: board.Arch, Log: slog.New(slog.DiscardHandler)})
	check(err)
	k, err := parts.Linux(ctx, board.Kernel)
	check(err)
	chosen, err := k.Tree.Choose(modules.Set{Name: "lab", Wants: p.Modules})
	check(err)
	tree := image.NewTree()
	for _, d := range []string{"proc", "sys", "run", "tmp", "etc"} {
		tree.Dir(d, 0o755)
	}
	for i, x := range chosen {
		tree.File(fmt.Sprintf("%s/%03d-%s.ko", wire.ModuleDir[1:], i, x.Name), 0o644, kmod.Unsigned(x.Data))
	}
	tree.File("init", 0o755, Build(t, "build", "github.com/zos-node/zos/qemu/lab/init"))
	tree.File("etc/passwd", 0o644, []byte("root:x:0:0::/:/\n"))
	tree.File("etc/group", 0o644, []byte("root:x:0:\n"))
	for name, b := range p.Files {
		tree.File(strings.TrimPrefix(name, "/"), 0o755, b)
	}
	for _, program := range p.Programs {
		check(borrow(ctx, tree, program))
	}
	cpio, err := tree.CPIO()
	check(err)
	check(os.WriteFile(o.Kernel, k.Image, 0o600))
	check(os.WriteFile(o.Initrd, cpio, 0o600))
}

// borrow takes a program of this machine, and the libraries that it needs.
func borrow(ctx context.Context, tree *image.Tree, program string) error {
	found, err := exec.LookPath(program)
	if err != nil {
		return err
	}
	if found, err = filepath.EvalSymlinks(found); err != nil {
		return err
	}
	b, err := os.ReadFile(found)
	if err != nil {
		return err
	}
	tree.File("usr/bin/"+program, 0o755, b)
	libs, err := exec.CommandContext(ctx, "ldd", found).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", found, err)
	}
	for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(string(libs), -1) {
		name := "lib64/" + filepath.Base(lib)
		if tree.Has(name) {
			continue
		}
		if b, err = os.ReadFile(lib); err != nil {
			return err
		}
		tree.File(name, 0o755, b)
	}
	return nil
}

// Build runs go with arguments such as "build" or "test", "-c", and a package at
// their end, and returns the static program.
func Build(t *testing.T, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	last := len(args) - 1
	cmd := exec.Command("go", append(append(args[:last:last], "-o", out), args[last])...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
