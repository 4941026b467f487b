// SPDX-License-Identifier: Apache-2.0

// Package proc is what both hypervisor drivers do alike with their process: a
// VMM (virtual machine monitor, the hypervisor's user-space half) is started
// confined, in a cgroup of its own, outlives the agent, is found again by a
// state file, and ends as a whole.
//
// Three ideas carry it. A pidfd names the process without the race of a pid
// that somebody else gets later, and it tells the end of a process that is not
// our child any more. The cgroup is the unit of killing: cgroup.kill reaches
// whatever the VMM made. And confinement is put on one sacrificed thread of
// the agent, from which the child is forked (see confine.go), so no launcher
// program is needed.
package proc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/vm"
)

// FirstFD is the number of the VMM's own socket in the child; taps follow.
const FirstFD = 3

// Names of files in a VM's directory. All of them are removed by Kill.
const (
	stateFile  = "state.json"
	EventsFile = "events.json"
	SerialFile = "serial.log"
	LogFile    = "vmm.log"
)

// Spec is a VMM about to be started.
type Spec struct {
	Driver  string // vm.Driver's name, kept in the state file
	ID, Dir string
	Path    string
	Args    []string // without the program's name
	// Prepare makes what must lie in Dir before the start and opens the
	// socket that the VMM answers on. It is called when it is sure that no
	// VM of this ID runs: until then, Dir may be that one's.
	Prepare func() (*os.File, error)
	Files   []*os.File // inherited from FirstFD+1 on; FirstFD is Prepare's file
	Rules   []Rule     // all that the file system is to the child
	User    uint32     // uid and gid; a VMM is uid 0, without a capability
	Connect []uint16   // TCP ports of the node's network that it may connect to; nil is a network of its own, with nothing in it
	Memory  int64      // memory.max in bytes
	Pids    int        // pids.max
	Parse   ParseFunc  // for EventsFile
	Remove  []string   // what else Kill removes, relative to Dir; folders last and only when empty
	Logger  *slog.Logger
}

// Process is a VMM that runs, or ran.
type Process struct {
	dir     string
	state   State // after Start and Adopt, only watch changes it
	punched int64 // up to where the event file's storage was given back
	pidfd   int   // -1 when the process was gone before it was adopted
	parse   ParseFunc
	remove  []string
	log     *slog.Logger

	started chan struct{} // closed at the first event that says that the guest runs
	events  chan vm.Event
	done    chan struct{}
	detail  string // how it ended; written before done is closed
}

// Start runs the VMM. When it fails, nothing is left.
func Start(ctx context.Context, s Spec) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &Process{dir: s.Dir, pidfd: -1, parse: s.Parse, remove: s.Remove, log: s.Logger,
		started: make(chan struct{}), events: make(chan vm.Event, maxEvents+1), done: make(chan struct{})}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	cgroup, err := makeCgroup(s.ID, s.Memory, s.Pids)
	if err != nil {
		return nil, err
	}
	p.state = State{Driver: s.Driver, ID: s.ID, BootID: boot, User: s.User, Net: s.Connect != nil}
	if err := p.launch(s, cgroup); err != nil {
		return nil, errors.Join(err, p.abandon())
	}
	go p.watch()
	return p, nil
}

// launch opens what the child gets and forks it.
func (p *Process) launch(s Spec, cgroup *os.File) (err error) {
	defer func() { err = errors.Join(err, cgroup.Close()) }()
	logFile, err := os.OpenFile(filepath.Join(s.Dir, LogFile), os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("log of the VMM: %w", err)
	}
	defer func() { err = errors.Join(err, logFile.Close()) }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer func() { err = errors.Join(err, null.Close()) }()
	// The event file exists before the VMM does, so that it can be watched.
	if err := os.WriteFile(filepath.Join(s.Dir, EventsFile), nil, 0o600); err != nil {
		return fmt.Errorf("event file: %w", err)
	}
	// Whatever the agent got from its parent without close-on-exec stays here.
	if err := unix.CloseRange(FirstFD, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close-on-exec: %w", err)
	}

	api, err := s.Prepare()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, api.Close()) }()
	fds := []uintptr{null.Fd(), logFile.Fd(), logFile.Fd(), api.Fd()}
	for _, f := range s.Files {
		fds = append(fds, f.Fd())
	}
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"LC_ALL=C"},
		Files: fds,
		Sys: &syscall.SysProcAttr{
			Setsid: true, UseCgroupFD: true, CgroupFD: int(cgroup.Fd()), PidFD: &p.pidfd,
			// The tap and the sockets come in as open files: no VMM needs a
			// network, another process or shared memory of the host.
			Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID,
		},
	}
	if s.Connect != nil {
		attr.Sys.Cloneflags &^= unix.CLONE_NEWNET
	}
	if s.User != 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: s.User, Gid: s.User}
	}
	abi, pid, err := confined(s.Rules, s.Connect, func() (int, error) {
		return syscall.ForkExec(s.Path, append([]string{s.Path}, s.Args...), attr)
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Path, err)
	}
	p.state.PID, p.state.Landlock = pid, abi
	if err := expendable(pid); err != nil {
		return err
	}
	if p.state.StartTicks, err = startTicks(pid); err != nil {
		return err
	}
	return p.writeState()
}

// abandon removes a half-started VMM.
func (p *Process) abandon() error {
	if p.pidfd >= 0 {
		go p.watch()
	} else {
		close(p.done)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return p.Kill(ctx)
}

// Adopt finds the VMM of a directory again. When it is gone by now, or its pid
// belongs to another process, the result delivers the events that were left
// behind and the end.
func Adopt(dir, driver string, parse ParseFunc, remove []string, log *slog.Logger) (*Process, error) {
	state, err := readState(dir)
	if err != nil {
		return nil, err
	}
	if state.Driver != driver {
		return nil, fmt.Errorf("the VM in %s was started by %s", dir, state.Driver)
	}
	p := &Process{dir: dir, state: state, pidfd: -1, parse: parse, remove: remove, log: log,
		started: make(chan struct{}), events: make(chan vm.Event, maxEvents+1), done: make(chan struct{})}
	for _, e := range state.Seen {
		p.events <- e
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if boot == state.BootID {
		// First the pidfd, then the comparison: from here on the number cannot
		// come to mean another process.
		fd, err := unix.PidfdOpen(state.PID, 0)
		if err == nil {
			if ticks, err := startTicks(state.PID); err == nil && ticks == state.StartTicks {
				p.pidfd = fd
			} else if err := unix.Close(fd); err != nil {
				return nil, fmt.Errorf("close pidfd: %w", err)
			}
		} else if !errors.Is(err, unix.ESRCH) {
			return nil, fmt.Errorf("pidfd of %d: %w", state.PID, err)
		}
	}
	go p.watch()
	return p, nil
}

// PID is the VMM's, in the agent's namespace.
func (p *Process) PID() int { return p.state.PID }

// Events ends with vm.EventExit and is then closed.
func (p *Process) Events() <-chan vm.Event { return p.events }

// Done is closed when the process is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Alive says whether the process is still there.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Booted waits until the VMM says that the guest runs.
func (p *Process) Booted(ctx context.Context) error {
	select {
	case <-p.started:
		return nil
	case <-p.done:
		return fmt.Errorf("the VMM ended: %s: %s", p.detail, p.LogTail())
	case <-ctx.Done():
		return fmt.Errorf("waiting for the VMM to start the guest: %w: %s", ctx.Err(), p.LogTail())
	}
}

// Kill ends everything in the cgroup, waits, and removes cgroup and files.
func (p *Process) Kill(ctx context.Context) error {
	if err := killCgroup(p.state.ID); err != nil {
		return err
	}
	if p.Alive() && p.pidfd >= 0 {
		if err := unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill %d: %w", p.state.PID, err)
		}
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("waiting for process %d to end: %w", p.state.PID, ctx.Err())
	}
	if err := removeCgroup(ctx, p.state.ID); err != nil {
		return err
	}
	var errs []error
	for _, name := range append([]string{stateFile, stateFile + ".new", EventsFile, SerialFile, LogFile}, p.remove...) {
		// A folder that is not empty holds what is not the VMM's, such as the
		// agent's own listener.
		err := os.Remove(filepath.Join(p.dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, fmt.Errorf("remove %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// wait returns how the process ended. It reaps only a child of ours; an
// adopted VMM is reaped by the node's init.
func (p *Process) wait() string {
	if p.pidfd < 0 {
		return "was gone when it was adopted"
	}
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err == nil {
			break
		} else if !errors.Is(err, unix.EINTR) {
			return fmt.Sprintf("waiting for it failed: %v", err)
		}
	}
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.state.PID, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return "ended (not our child, no exit status)"
		case status.Signaled():
			return "killed by " + unix.SignalName(status.Signal())
		default:
			return fmt.Sprintf("exit status %d", status.ExitStatus())
		}
	}
}
