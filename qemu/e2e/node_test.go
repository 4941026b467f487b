// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/qemu"
)

// limit of one wait: an emulated machine is slow, a hung one is found out.
const limit = 10 * time.Minute

// node is a booted one.
type node struct {
	*qemu.Machine
	t       *testing.T
	w       *world
	gateway int // port on this machine that leads to the node's port 8000
	result  image.Result
	guest   string // folder with the guests' kernel and initramfs
}

// boot starts a node. With disk it boots its image through OVMF, with the seed
// on the boot partition; else kernel and initramfs directly, which is faster.
func (w *world) boot(driver, name string, disk bool, mirrors ...*mirror) *node {
	w.t.Helper()
	return w.bootAs(driver, name, disk, func(*qemu.Options) {}, mirrors...)
}

// bootAs is boot of a machine that is altered before it is started.
func (w *world) bootAs(driver, name string, disk bool, alter func(*qemu.Options), mirrors ...*mirror) *node {
	w.t.Helper()
	seed := w.seed(name, mirrors...)
	out, res := w.buildNode(driver, "", seed)
	n := &node{t: w.t, w: w, gateway: freePort(w.t), result: res, guest: filepath.Join(out, "guest")}
	o := qemu.Options{
		Accel: qemu.Probe(context.Background(), qemu.Binary), MemoryMiB: 2048, Faults: true,
		Forward: map[int]int{n.gateway: 8000}, Log: filepath.Join(shared.dir, "console-"+name+".log"),
	}
	if w.board.Arch == "arm64" {
		o.Arch, o.Accel, o.UEFI = w.board.Arch, qemu.ArmTCG, &qemu.UEFI{Bus: "virtio"}
	}
	if disk {
		o.Disk = filepath.Join(out, "node.img")
	} else {
		base, err := os.ReadFile(filepath.Join(out, "initramfs"))
		if err != nil {
			w.t.Fatal(err)
		}
		patch := image.Patch()
		patch.File("etc/zos/seed.json", 0o600, seed)
		both, err := image.Appended(base, patch)
		if err != nil {
			w.t.Fatal(err)
		}
		w.write(name+".initrd", both)
		o.Kernel, o.Initrd, o.Cmdline = filepath.Join(out, "vmlinuz"), w.path(name+".initrd"), res.Cmdline
	}
	alter(&o)
	var err error
	if n.Machine, err = qemu.Boot(deadline(w.t), o, qemu.Up); errors.Is(err, qemu.ErrFirmware) || errors.Is(err, exec.ErrNotFound) {
		w.t.Skipf("SKIP %v", err)
	} else if err != nil {
		w.t.Fatal(err)
	}
	if n.Retries > 0 {
		w.t.Logf("the emulator broke %d earlier boot; it was tried again", n.Retries)
	}
	w.t.Cleanup(func() {
		if err := n.Close(); err != nil {
			w.t.Error(err)
		}
		if w.t.Failed() {
			w.t.Logf("end of the console (all of it: %s):\n%s", o.Log, n.Console.Tail(60))
		}
		if n.EmulatorFault() {
			w.t.Logf("EMULATOR FAULT in %s: the outer kernel died of a race in the emulator, not of zos", strings.SplitN(w.t.Name(), "/", 2)[0])
		} else if w.t.Failed() && n.GuestFault() {
			w.t.Logf("EMULATOR FAULT in %s: a guest's kernel died of a race in the emulator, not of zos", strings.SplitN(w.t.Name(), "/", 2)[0])
		}
	})
	w.t.Logf("node %s: %s, accelerator %s (%s)", name, driver, o.Accel.Name, o.Accel.Why)
	return n
}

// deadline is a context for one wait.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// says waits for a console line from a mark on and returns the mark behind it.
func (n *node) says(t *testing.T, m qemu.Mark, pattern string) (string, qemu.Mark) {
	t.Helper()
	line, _, next, err := n.Console.Expect(deadline(t), m, regexp.MustCompile(pattern))
	if err != nil {
		t.Fatal(err)
	}
	return line.Text, next
}

// follows waits until the agent follows the ledger.
func (n *node) follows(t *testing.T) {
	t.Helper()
	n.says(t, 0, `msg="following the ledger"`)
}

// keyIs wants the ledger to say who can read this node's key, and why it is not
// sealed: the machines of these tests have no TPM.
func (n *node) keyIs(t *testing.T, want string) {
	t.Helper()
	nodes := n.w.client.State().Nodes()
	boot := nodes[len(nodes)-1].Capacity.Boot // the newest, which is this one
	if boot.Key != want || boot.PCR11 != "" || !slices.ContainsFunc(boot.Lacks, func(l string) bool { return strings.HasPrefix(l, "no TPM") }) {
		t.Errorf("on the ledger the node says of its boot: %+v, want a key that is %q, and that there is no TPM", boot, want)
	}
}

// stat is what the fault program sees inside.
type stat struct {
	Processes []struct {
		PID    int    `json:"pid"`
		Name   string `json:"name"`
		RSSKiB int64  `json:"rssKiB"`
		Cgroup string `json:"cgroup"`
	} `json:"processes"`
	Links           []string `json:"links"`
	Uptime          string   `json:"uptime"`
	MemTotalKiB     int64    `json:"memTotalKiB"`
	MemAvailableKiB int64    `json:"memAvailableKiB"`
}

func (n *node) stat(t *testing.T) stat {
	t.Helper()
	var s stat
	n.fault(t, map[string]any{"do": "stat"}, &s)
	return s
}

func (n *node) fault(t *testing.T, command map[string]any, reply any) {
	t.Helper()
	if err := n.Fault(deadline(t), command, reply); err != nil {
		t.Fatal(err)
	}
}

// pids of a program inside.
func (n *node) pids(t *testing.T, name string) []int {
	t.Helper()
	var all []int
	for _, p := range n.stat(t).Processes {
		if p.Name == name {
			all = append(all, p.PID)
		}
	}
	return all
}

// guests are the pids of the VMMs inside. Their cgroup tells them from a
// hypervisor that the agent only asks for its version.
func (n *node) guests(t *testing.T) []int {
	t.Helper()
	var all []int
	for _, p := range n.stat(t).Processes {
		if slices.Contains(vmm, p.Name) && strings.HasPrefix(p.Cgroup, "0::/zos/") {
			all = append(all, p.PID)
		}
	}
	slices.Sort(all)
	return all
}

// vmm are the names that hypervisors run under.
var vmm = []string{"cloud-hypervisor", "qemu-system-x86_64"}

// nothingRuns checks that no guest, bridge or tap is left inside.
func (n *node) nothingRuns(t *testing.T) {
	t.Helper()
	s := n.stat(t)
	for _, p := range s.Processes {
		if slices.Contains(vmm, p.Name) && strings.HasPrefix(p.Cgroup, "0::/zos/") {
			t.Errorf("a hypervisor still runs inside: %+v", p)
		}
	}
	for _, l := range s.Links {
		if regexp.MustCompile(`^z[bt][0-9]`).MatchString(l) {
			t.Errorf("link %s is left inside", l)
		}
	}
	for _, pattern := range []string{"/run/zos/vm/*", "/run/zos/volumes/*", "/run/zos/output/*", "/run/zos/imaged/*", "/sys/fs/cgroup/zos/*/cgroup.procs"} {
		var r struct{ Files []string }
		if n.fault(t, map[string]any{"do": "list", "file": pattern}, &r); len(r.Files) > 0 {
			t.Errorf("%v is left inside", r.Files)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
