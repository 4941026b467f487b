// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/ahead"
	"github.com/zos-node/zos/guest/net"
	"github.com/zos-node/zos/guest/process"
	"github.com/zos-node/zos/guest/root"
	"github.com/zos-node/zos/guest/verity"
	"github.com/zos-node/zos/guest/wire"
)

// deviceName of the verity device.
const deviceName = "root"

// pidsMax of the workload: enough for thousands of threads, not for a bomb.
const pidsMax = 8192

// workload is what the configuration becomes.
type workload struct {
	*guest
	config     wire.Config
	caps       []process.Capability
	stopSignal syscall.Signal
	thread     *process.Thread
	cgroup     *process.Cgroup
	root       root.Spec
	verity     verity.State
	null       *os.File    // where a check's output goes
	near       ahead.Saved // while the root is still arriving and the start lasts: how far is read ahead else
	calm       sync.Once
}

// setup does everything up to the Report.
func (w *workload) setup(phase *string) error {
	for _, step := range []struct {
		phase string
		do    func() error
	}{
		{"config", w.check},
		{"clock", func() error { return setClock(w.config.TimeMs) }},
		{"entropy", func() error { return addEntropy(w.config.Entropy) }},
		{"verity", w.openRoot},
		{"root", w.buildRoot},
		{"network", w.network},
		{"limits", w.limit},
		{"report", w.report},
	} {
		*phase = step.phase
		if err := step.do(); err != nil {
			return err
		}
	}
	return nil
}

// check refuses a configuration before anything is done for it.
func (w *workload) check() (err error) {
	c := w.config
	if w.caps, err = process.Capabilities(c.Process.Capabilities); err != nil {
		return err
	}
	if w.stopSignal, err = process.Signal(c.Process.StopSignal); err != nil {
		return err
	}
	if len(c.Process.Args) == 0 {
		return errors.New("process: no program")
	}
	if c.Process.Cwd == "" {
		w.config.Process.Cwd = "/"
	}
	for _, i := range c.Interfaces {
		if _, err := net.Parse(i); err != nil {
			return err
		}
	}
	switch c.Check.Kind {
	case "none":
	case "tcp", "http", "exec":
		if c.Check.IntervalMs <= 0 || c.Check.TimeoutMs <= 0 || c.Check.Failures <= 0 || (c.Check.Kind == "exec" && len(c.Check.Args) == 0) {
			return fmt.Errorf("health check %+v is not complete", c.Check)
		}
	default:
		return fmt.Errorf("unknown kind of health check %q", c.Check.Kind)
	}
	return nil
}

func (w *workload) openRoot() error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	params, err := verity.ParseCmdline(string(cmdline))
	if err != nil {
		return err
	}
	disk, err := findDisk("root")
	if err != nil {
		return err
	}
	if w.root.Device, w.verity, err = verity.Open("/dev", deviceName, disk, params); err != nil {
		return err
	}
	if ahead.Arriving(string(cmdline), wire.Arriving) {
		if w.near, err = ahead.Off("/sys", filepath.Base(w.root.Device)); err != nil {
			say("%v", err) // the start then waits for more than it needs
		}
	}
	return nil
}

func (w *workload) buildRoot() error {
	if err := unix.Sethostname([]byte(w.config.Machine)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	w.root.Files = w.files()
	w.root.Mounts = slices.Clone(w.config.Mounts)
	w.root.Volume = findDisk
	var err error
	if w.thread, err = process.NewThread(); err != nil {
		return err
	}
	return w.thread.Do(func() error { return root.Build(w.root) })
}

// files are the spec's, and the generated ones that the spec does not bring.
func (w *workload) files() []wire.File {
	files := slices.Clone(w.config.Files)
	for _, f := range []wire.File{
		{Path: "/etc/hostname", Content: []byte(w.config.Machine + "\n")},
		{Path: "/etc/hosts", Content: []byte(net.Hosts(w.config.Hosts))},
		{Path: "/etc/resolv.conf", Content: []byte("# No name server: names of the deployment are in /etc/hosts.\n")},
	} {
		if !slices.ContainsFunc(files, func(own wire.File) bool { return own.Path == f.Path }) {
			f.Mode = 0o644
			files = append(files, f)
		}
	}
	return files
}

func (w *workload) network() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return net.Setup(ctx, w.config.Interfaces)
}

// limit makes the cgroup and takes rights from the thread that forks.
func (w *workload) limit() error {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return err
	}
	total, err := process.MemTotal(string(info))
	if err != nil {
		return err
	}
	if w.cgroup, err = process.NewCgroup(cgroupRoot, process.MemoryLimit(total), pidsMax); err != nil {
		return err
	}
	files := unix.Rlimit{Cur: 65536, Max: 1 << 20}
	if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, (*syscall.Rlimit)(&files)); err != nil {
		return fmt.Errorf("open files: %w", err)
	}
	if w.null, err = os.OpenFile("/dev/null", os.O_WRONLY, 0); err != nil {
		return err
	}
	return w.thread.Do(func() error { return process.Drop(w.caps) })
}

// report reads everything back from the kernel, not from the configuration.
func (w *workload) report() error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	// The mount read the device by now: this status is worth more than the
	// first.
	state, err := verity.Status("/dev", deviceName)
	if err != nil {
		return err
	}
	r := wire.Report{Cmdline: strings.TrimSuffix(string(cmdline), "\n"), Verity: wire.Verity{Table: state.Table, Status: state.Status}}
	if r.Addrs, err = net.Addresses(); err != nil {
		return err
	}
	err = w.thread.Do(func() error {
		info, err := os.ReadFile("/proc/thread-self/mountinfo")
		if err != nil {
			return err
		}
		r.Mounts = root.Mounts(string(info))
		r.Files, err = digests(w.config.Files)
		return err
	})
	if err != nil {
		return err
	}
	w.link.Report(r)
	return nil
}

// digests are of what is there now, whatever the configuration said should be.
func digests(files []wire.File) (sums map[string]string, err error) {
	sums = map[string]string{}
	for _, f := range files {
		if sums[f.Path], err = digest(f.Path); err != nil {
			return nil, err
		}
	}
	return sums, nil
}

// digest reads a file as the workload would find it.
func digest(name string) (sum string, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// teardown leaves no process and no volume mounted; it also cleans up after a
// set-up that did not get far.
func (w *workload) teardown() error {
	var errs []error
	if w.cgroup != nil {
		errs = append(errs, w.cgroup.Kill(lastWords))
	}
	unix.Sync()
	if w.thread != nil {
		errs = append(errs, w.thread.Do(w.root.Leave))
	}
	return errors.Join(errs...)
}
