// SPDX-License-Identifier: Apache-2.0

// Command init is PID 1 of the node. It is small and never returns: it mounts
// the file system from a table, loads drivers, feeds the watchdog, collects
// dead children, keeps the agent running, and turns the machine off in order.
// All that can fail in interesting ways (network, TLS, ledger, guests) is the
// agent's, which init starts again when it ends.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/init/cmdline"
	"github.com/zos-node/zos/init/console"
	"github.com/zos-node/zos/init/devices"
	"github.com/zos-node/zos/init/memory"
	"github.com/zos-node/zos/init/mount"
	"github.com/zos-node/zos/init/power"
	"github.com/zos-node/zos/init/reap"
	"github.com/zos-node/zos/init/supervise"
)

const (
	// memory that the Go runtime tries to stay under
	memoryLimit = 10 << 20
	// guests is the cgroup below which every VM has its own.
	guests = "/sys/fs/cgroup/zos"
	// bootReady appears when the drivers that the agent starts with are loaded
	// and the machine's disks are known to be one node's. The agent is started
	// before, and waits for it: a Go program needs its time, too.
	bootReady = "/run/boot-ready"
	// driversReady appears when every driver is loaded.
	driversReady = "/run/drivers-ready"
	// agentTime is how long the agent has for ending its guests.
	agentTime = 90 * time.Second
	// lateAfter is how long the drivers that guests need leave the one processor
	// to an agent that does not reach the ledger.
	lateAfter = 5 * time.Second
	// agentScore is the agent's rank when memory runs out: guests and whatever
	// else there is are ended before it.
	agentScore = -900
)

type node struct {
	log     *slog.Logger
	out     *console.Consoles
	reaper  *reap.Reaper
	agent   *supervise.Child
	ending  chan power.How  // a wish to end the machine
	granted chan struct{}   // the agent says that its guests have ended
	blessed chan struct{}   // the agent says that this image may stay
	reached chan struct{}   // the agent says that it follows the ledger
	failing sync.Once       // the node stops for one reason only
	hears   map[string]bool // power buttons, by input device
	forget  atomic.Bool     // a reset: what the node keeps goes as well
	board   board           // what the consoles show
	running context.Context // of everything that is supervised
	stop    context.CancelFunc
}

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: I am PID 1 of a node and nothing else")
		os.Exit(2)
	}
	runtime.GOMAXPROCS(2)
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(50)
	runtime.MemProfileRate = 0
	n := &node{hears: map[string]bool{}, ending: make(chan power.How, 4), granted: make(chan struct{}, 4), blessed: make(chan struct{}, 1), reached: make(chan struct{}, 1)}
	n.running, n.stop = context.WithCancel(context.Background())
	mounted := mount.All(mount.Table(), mount.Mount)
	n.open()
	defer n.lastWords()
	if err := n.boot(mounted); err != nil {
		n.fail(err)
	}
	n.end(<-n.ending)
}

// open finds the consoles and makes the log that goes to them.
func (n *node) open() {
	// Which consoles the kernel has is only known once /sys is there; without
	// it the kernel's own has to do.
	active, err := os.ReadFile("/sys/class/tty/console/active")
	n.out = console.Open(os.Stdout, string(active), "/dev")
	n.log = slog.New(slog.NewTextHandler(n.out, nil)).With("part", "init")
	if err != nil {
		n.log.Warn("list of consoles", "err", err)
	}
}

// boot brings the node up to a supervised agent.
func (n *node) boot(mounted error) error {
	const report = "Report this: the image and the kernel do not fit. The image that ran before still works."
	if err := fault("MOUNT", "the node's file system", "every mount of the table in init/mount", report, mounted); err != nil {
		return err
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err == nil {
		err = cmdline.Printable(string(line))
	}
	if err == nil {
		err = cmdline.Check(cmdline.Parse(string(line)))
	}
	if err := fault("CMDLINE", "the kernel's command line", "only words that init/cmdline lists",
		"Take the words out where they are added: firmware, SMBIOS strings, hypervisor, or boot menu.", err); err != nil {
		return err
	}
	if err := fault("SYSCTL", "the kernel's settings", "every setting of the table in init", report, n.sysctls(sysctls)); err != nil {
		return err
	}
	n.reaper = reap.New(func(s reap.Status) { n.log.Debug("orphan ended", "pid", s.PID, "how", s.String()) })
	n.signals()
	n.agent = &supervise.Child{
		Path: "/bin/agent", Env: []string{"PATH=/bin", "HOME=/run/zos", "GOMEMLIMIT=48MiB", "GOTRACEBACK=single"},
		Beats: true, Reaper: n.reaper, Console: n.out, Log: n.log, Asked: n.asked, Told: n.board.told, Began: n.board.began, Ended: n.agentEnded, Score: agentScore,
	}
	n.guard("agent", func() { n.agent.Run(n.running) })
	// The agent needs its time to start; what it does not need comes now.
	n.crashOutput()
	if err := memory.Set(); err != nil {
		n.log.Warn("the kernel holds back more memory than it needs to", "err", err)
	}
	index, err := openIndex()
	if err == nil {
		err = n.drivers(func() (devices.Result, error) {
			return devices.Load(index, devices.Early(index.Boot(), slices.Concat(index.Late(), index.Waiting())), modaliases, n.log)
		})
	}
	if err := fault("DRIVERS", "the drivers", "lib/modules of the running kernel in the image", report, err); err != nil {
		return err
	}
	n.mountDrivers(index)
	if err := n.twins(); err != nil {
		return err
	}
	n.guard("disks", n.watchDisks)
	if err := fault("RUN", "the folder of what runs", "a file in /run", report, os.WriteFile(bootReady, nil, 0o644)); err != nil {
		return err
	}
	if err := fault("SYSCTL", "the kernel's settings", "every setting of the table in init", report, n.sysctls(slowSysctls)); err != nil {
		return err
	}
	n.operators()
	n.faults()
	n.guard("late", func() {
		n.myTurn()
		if err := devices.Yield(); err != nil {
			n.log.Warn("late drivers compete with the agent", "err", err)
		}
		n.late(index)
	})
	return nil
}

// guard runs f beside us; a panic in it is shown and ends the machine in
// order instead of ending PID 1.
func (n *node) guard(what string, f func()) {
	go func() {
		defer n.lastWords()
		f()
		n.log.Debug("loop ended", "loop", what)
	}()
}

// sysctls of a node; only what a kernel does not have is passed over.
var sysctls = [][2]string{
	{"kernel/panic", "10"}, {"kernel/panic_on_oops", "1"}, {"kernel/kptr_restrict", "2"}, {"kernel/dmesg_restrict", "1"},
	{"kernel/kexec_load_disabled", "1"}, {"kernel/unprivileged_bpf_disabled", "1"}, {"kernel/core_pattern", "|/bin/false"},
	{"fs/protected_symlinks", "1"}, {"fs/protected_hardlinks", "1"}, {"fs/suid_dumpable", "0"}, {"vm/overcommit_memory", "1"},
}

// slowSysctls are set when the agent need not wait for them: the kernel takes
// its key handler from every keyboard, which takes longer than all others.
var slowSysctls = [][2]string{{"kernel/sysrq", "0"}}

func (n *node) sysctls(table [][2]string) error {
	for _, s := range table {
		err := os.WriteFile("/proc/sys/"+s[0], []byte(s[1]), 0)
		if errors.Is(err, os.ErrNotExist) {
			n.log.Info("this kernel has no such setting", "name", s[0])
			continue
		}
		if err != nil {
			return fmt.Errorf("set %s to %s: %w", s[0], s[1], err)
		}
	}
	return nil
}

// signals: children, Ctrl-Alt-Del (the kernel is told to send it to us), and
// the ways in which a hypervisor asks.
func (n *node) signals() {
	children := make(chan os.Signal, 16)
	signal.Notify(children, syscall.SIGCHLD)
	n.guard("reaper", func() { n.reaper.Run(children, func(err error) { n.log.Error("reaper", "err", err) }) })
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		n.log.Warn("Ctrl-Alt-Del", "err", err)
	}
	wishes := make(chan os.Signal, 4)
	signal.Notify(wishes, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPWR)
	n.guard("signals", func() {
		for s := range wishes {
			how := power.Off
			if s == syscall.SIGINT {
				how = power.Reboot
			}
			n.log.Info("asked to end", "signal", s.String(), "how", how)
			n.ending <- how
		}
	})
}

// buttons listens to the power buttons that are not listened to yet.
func (n *node) buttons() {
	found, err := power.Buttons("/sys/class/input")
	if err != nil {
		n.log.Warn("power buttons", "err", err)
	}
	for _, name := range found {
		if n.hears[name] {
			continue
		}
		f, err := os.Open(filepath.Join("/dev/input", name))
		if err != nil {
			n.log.Error("power button", "device", name, "err", err)
			continue
		}
		n.hears[name] = true
		n.guard("button", func() {
			err := power.Pressed(f)
			f.Close()
			if err != nil {
				n.log.Error("power button", "device", name, "err", err)
				return
			}
			n.log.Info("power button pressed")
			n.ending <- power.Off
		})
	}
}

// asked is what the agent says.
func (n *node) asked(word string) {
	note := func(c chan struct{}) {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	switch word {
	case supervise.Blessed:
		note(n.blessed)
		return
	case supervise.Following:
		note(n.reached)
		return
	}
	note(n.granted)
	n.log.Info("agent asks for the end", "how", word)
	select {
	case n.ending <- power.How(word):
	default:
	}
}

// end turns the machine off, guests first.
func (n *node) end(how power.How) {
	n.log.Info("ending", "how", how)
	n.farewell()
	n.stop() // what ends now is not started again
	n.shut()
	if n.forget.Load() {
		n.reset()
	}
	n.board.close()
	n.log.Info("the machine ends now", "how", how)
	n.out.Drain(3 * time.Second)
	if err := power.Do(how); err != nil {
		n.fail(err)
	}
	select {} // the kernel is on its way out
}

// shut ends what is left, and writes and unmounts disks.
func (n *node) shut() {
	unmount := func() error {
		info, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return fmt.Errorf("list mounts: %w", err)
		}
		var errs []error
		for _, target := range mount.Undo(string(info)) {
			if err := unix.Unmount(target, 0); err != nil {
				errs = append(errs, fmt.Errorf("unmount %s: %w", target, err))
			}
		}
		return errors.Join(errs...)
	}
	for _, s := range power.Steps(guests, unmount, time.Sleep) {
		err := s.Do()
		if err != nil {
			n.log.Error("ending", "step", s.Name, "err", err)
		}
	}
}

// farewell gives the agent time to end its guests in order.
func (n *node) farewell() {
	if n.agent == nil {
		return
	}
	select {
	case <-n.granted:
		return // it was the agent's own wish
	default:
	}
	if err := n.agent.Say(supervise.Shutdown); err != nil {
		n.log.Warn("the agent cannot end its guests", "err", err)
		return
	}
	start := time.Now()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-n.granted:
			n.log.Info("the agent has ended its guests", "took", time.Since(start).Round(time.Millisecond))
			return
		case <-tick.C:
			n.log.Info("waiting for the agent to end its guests", "elapsed", time.Since(start).Round(time.Second), "limit", agentTime)
			if time.Since(start) > agentTime {
				n.log.Error("the agent did not end its guests in time; they are ended now")
				return
			}
		}
	}
}
