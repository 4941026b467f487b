// SPDX-License-Identifier: Apache-2.0

// Package process starts the workload and whatever else runs in its place
// (health checks), and reaps every process of the guest.
//
// A mount namespace, a capability bounding set and no_new_privs belong to a
// thread, and a child is born with those of the thread that forks it. So one
// thread of PID 1 is given away: it enters a mount namespace of its own,
// builds the workload's root there, drops what the workload must not have,
// and from then on only forks. No second program and no second start of this
// one is needed, and PID 1's other threads keep their view and their rights.
package process

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/wire"
)

// Thread is that thread.
type Thread struct{ work chan func() }

// NewThread makes it, in a mount namespace that begins as a copy.
func NewThread() (*Thread, error) {
	t := &Thread{work: make(chan func())}
	ready := make(chan error)
	go onThread(func() {
		ready <- unix.Unshare(unix.CLONE_NEWNS)
		for f := range t.work {
			f()
		}
	})
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("mount namespace: %w", err)
	}
	return t, nil
}

// onThread runs f on a thread that nothing else uses any more. That must not
// be the program's first one, whose state is what /proc/<pid> shows for the
// whole; while it is held here, f can only get another.
func onThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return // locked: the thread ends
	}
	held := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(held)
		f()
	}()
	<-held
	runtime.UnlockOSThread()
}

// Do runs f there and waits. A panic in f comes back as an error: it must not
// take the thread, and so the workload's name space, with it.
func (t *Thread) Do(f func() error) error {
	result := make(chan error)
	t.work <- func() {
		var err error
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
			result <- err
		}()
		err = f()
	}
	return <-result
}

// Drop leaves the thread's children these capabilities at most, no way to gain
// any by a program's set-uid bit or file capabilities, and no way to the agent
// (see denyVsock). The thread itself keeps its own capabilities, to fork into
// cgroups and to unmount at the end.
func Drop(keep []Capability) error {
	kept := map[Capability]bool{}
	for _, c := range keep {
		kept[c] = true
	}
	for c := Capability(0); ; c++ {
		if kept[c] {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // behind the last one that this kernel knows
		}
		if err != nil {
			return fmt.Errorf("drop capability %s: %w", c, err)
		}
	}
	for _, c := range keep {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil || has != 1 {
			return fmt.Errorf("capability %s is not to be had: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return denyVsock()
}

// Command is one process to start.
type Command struct {
	wire.Process
	Capabilities   []Capability
	Cgroup         int // open folder
	Stdout, Stderr *os.File
}

// Fork starts it; it must be called on the Thread, with the Table locked (see
// Table.Start).
func (c Command) Fork() (pid int, err error) {
	if len(c.Args) == 0 {
		return 0, errors.New("no program")
	}
	if info, err := os.Stat(c.Cwd); err != nil || !info.IsDir() {
		return 0, fmt.Errorf("working directory %q: %w", c.Cwd, errors.Join(err, notDir(info)))
	}
	program, err := Look(c.Args[0], c.Env, c.Cwd)
	if err != nil {
		return 0, err
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, null.Close()) }()
	attr := &syscall.ProcAttr{
		Dir: c.Cwd, Env: c.Env,
		Files: []uintptr{null.Fd(), c.Stdout.Fd(), c.Stderr.Fd()},
		Sys: &syscall.SysProcAttr{
			Setsid: true, UseCgroupFD: true, CgroupFD: c.Cgroup,
			Credential: &syscall.Credential{Uid: uint32(c.UID), Gid: uint32(c.GID)}, // and no other groups
		},
	}
	// uid 0 gets, at exec, all of the bounding set, which is exactly what is to
	// be kept. Any other user gets capabilities only as ambient ones.
	if c.UID != 0 {
		for _, k := range c.Capabilities {
			attr.Sys.AmbientCaps = append(attr.Sys.AmbientCaps, uintptr(k))
		}
	}
	pid, err = syscall.ForkExec(program, c.Args, attr)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", program, err)
	}
	return pid, nil
}

// aheadLimit is how much of a program is read before it is wanted. What a
// larger one needs first is mostly at its beginning.
const aheadLimit = 8 << 20

// Ahead lets the kernel read the program, and check its blocks, while there is
// nothing else to do; it must be called on the Thread. It does not wait for the
// reading. A program that is not there fails in Fork, which says so.
func (c Command) Ahead() (err error) {
	program, err := Look(c.Args[0], c.Env, c.Cwd)
	if err != nil {
		return err
	}
	f, err := os.Open(program)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return unix.Fadvise(int(f.Fd()), 0, aheadLimit, unix.FADV_WILLNEED)
}

func notDir(info os.FileInfo) error {
	if info != nil && !info.IsDir() {
		return errors.New("not a folder")
	}
	return nil
}

// DefaultPath is looked through when the environment has no PATH, as execvp
// does.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Look finds a program: a name with a slash is a path, seen from the working
// directory; any other is looked for in the PATH of the environment.
func Look(name string, env []string, cwd string) (string, error) {
	if strings.Contains(name, "/") {
		if !path.IsAbs(name) {
			name = path.Join(cwd, name)
		}
		return name, executable(name)
	}
	search := DefaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	var denied error
	for _, dir := range strings.Split(search, ":") {
		if !path.IsAbs(dir) {
			dir = path.Join(cwd, dir)
		}
		at := path.Join(dir, name)
		err := executable(at)
		if err == nil {
			return at, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", fmt.Errorf("program %q: %w in PATH %s", name, os.ErrNotExist, search)
}

func executable(name string) error {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return fmt.Errorf("program: %w", err)
	case info.IsDir():
		return fmt.Errorf("program %s: is a folder", name)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("program %s: %w: it is not executable", name, os.ErrPermission)
	}
	return nil
}
