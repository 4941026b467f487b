// SPDX-License-Identifier: Apache-2.0

package faulty

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Tracer runs a program once.
type Tracer struct {
	Dir  string // what the program changes below it counts
	At   int    // the number of the call that fails, from 1 on; 0 is none
	Full bool   // from there on the disk is full; else the program is killed before it

	Steps []string // what was called, in order: "open tmp/x", "rename tmp/x to y", "syncfs ."
	Hit   bool     // the fault was put in

	pid  int
	deny map[int]bool
}

// change describes a call by where its file is: an argument that is an open
// file, or one that is a path.
type change struct {
	name     string
	fd, path int // argument, or -1
	grows    bool
}

var changes = map[uint64]change{
	unix.SYS_WRITE: {"write", 0, -1, true}, unix.SYS_PWRITE64: {"pwrite", 0, -1, true}, unix.SYS_FTRUNCATE: {"ftruncate", 0, -1, false},
	unix.SYS_FSYNC: {"fsync", 0, -1, false}, unix.SYS_SYNCFS: {"syncfs", 0, -1, false}, unix.SYS_FCHMOD: {"fchmod", 0, -1, false},
	unix.SYS_OPENAT: {"open", -1, 1, true}, unix.SYS_MKDIRAT: {"mkdir", -1, 1, true}, unix.SYS_UNLINKAT: {"unlink", -1, 1, false},
	unix.SYS_RENAMEAT: {"rename", -1, 1, true}, unix.SYS_RENAME: {"rename", -1, 0, true}, unix.SYS_FCHMODAT: {"chmod", -1, 1, false},
	unix.SYS_UTIMENSAT: {"utimes", -1, 1, false},
}

// Run returns how the program ended.
func (t *Tracer) Run(cmd *exec.Cmd) (syscall.WaitStatus, error) {
	runtime.LockOSThread() // only this thread is the program's tracer
	defer runtime.UnlockOSThread()
	t.deny = map[int]bool{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	t.pid = cmd.Process.Pid
	var s syscall.WaitStatus
	if _, err := syscall.Wait4(t.pid, &s, unix.WALL, nil); err != nil {
		return 0, err
	}
	if err := syscall.PtraceSetOptions(t.pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL); err != nil {
		return 0, err
	}
	for tid, sig := t.pid, 0; ; {
		if err := syscall.PtraceSyscall(tid, sig); err != nil && !errors.Is(err, unix.ESRCH) { // ESRCH: killed meanwhile
			return 0, err
		}
		var err error
		if tid, err = t.wait(&s); err != nil {
			return 0, err
		}
		for s.Exited() || s.Signaled() {
			if tid == t.pid {
				return s, cmd.Process.Release()
			}
			if tid, err = t.wait(&s); err != nil {
				return 0, err
			}
		}
		sig = 0
		switch stop := s.StopSignal(); stop {
		case unix.SIGTRAP | 0x80:
			if err := t.call(tid); err != nil && !errors.Is(err, unix.ESRCH) {
				return 0, err
			}
		case unix.SIGTRAP, unix.SIGSTOP: // a new thread
		default:
			sig = int(stop)
		}
	}
}

func (t *Tracer) wait(s *syscall.WaitStatus) (int, error) {
	const noThread = 0x20000000 // __WNOTHREAD: not the children of other tests
	for {
		tid, err := syscall.Wait4(-1, s, unix.WALL|noThread, nil)
		if !errors.Is(err, unix.EINTR) {
			return tid, err
		}
	}
}

// call looks at one call, at its entry or its exit.
func (t *Tracer) call(tid int) error {
	var info [88]byte // struct ptrace_syscall_info
	const getInfo, entry = 0x420e, 1
	if _, _, e := unix.Syscall6(unix.SYS_PTRACE, getInfo, uintptr(tid), uintptr(len(info)), uintptr(unsafe.Pointer(&info[0])), 0, 0); e != 0 {
		return e
	}
	var regs syscall.PtraceRegs
	if info[0] != entry {
		if !t.deny[tid] {
			return nil
		}
		delete(t.deny, tid)
		if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
			return err
		}
		full := -int64(unix.ENOSPC)
		regs.Rax = uint64(full)
		return syscall.PtraceSetRegs(tid, &regs)
	}
	nr := binary.NativeEndian.Uint64(info[24:])
	arg := func(i int) uint64 { return binary.NativeEndian.Uint64(info[32+8*i:]) }
	c, ok := changes[nr]
	if !ok || nr == unix.SYS_OPENAT && arg(2)&(unix.O_CREAT|unix.O_TRUNC) == 0 {
		return nil
	}
	name := t.file(c, arg)
	if !strings.HasPrefix(name, t.Dir) {
		return nil
	}
	step := c.name + " " + t.below(name)
	switch nr { // a rename is told by both its names
	case unix.SYS_RENAMEAT:
		step += " to " + t.below(t.text(arg(3)))
	case unix.SYS_RENAME:
		step += " to " + t.below(t.text(arg(1)))
	}
	t.Steps = append(t.Steps, step)
	switch n := len(t.Steps); {
	case t.At == 0 || n < t.At || !t.Full && n > t.At:
		return nil
	case !t.Full:
		t.Hit = true
		return unix.Kill(t.pid, unix.SIGKILL)
	case !c.grows:
		return nil
	}
	t.Hit, t.deny[tid] = true, true
	if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	regs.Orig_rax = ^uint64(0) // no call
	return syscall.PtraceSetRegs(tid, &regs)
}

// file is what a call is about, "" when nobody can say.
func (t *Tracer) file(c change, arg func(int) uint64) string {
	if c.fd >= 0 {
		name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", t.pid, arg(c.fd)))
		if err != nil {
			return ""
		}
		return name
	}
	return t.text(arg(c.path))
}

// text is a text of the program, "" when nobody can say.
func (t *Tracer) text(at uint64) string {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", t.pid))
	if err != nil {
		return ""
	}
	defer mem.Close()
	b := make([]byte, 512)
	n, _ := mem.ReadAt(b, int64(at)) // it ends with its page
	text, _, _ := bytes.Cut(b[:n], []byte{0})
	return string(text)
}

// below is a name as it is in the folder, which itself is ".".
func (t *Tracer) below(name string) string {
	if name == t.Dir {
		return "."
	}
	return strings.TrimPrefix(name, t.Dir+"/")
}

// Kinds counts what was called, for people.
func (t *Tracer) Kinds() string {
	count := map[string]int{}
	for _, s := range t.Steps {
		name, _, _ := strings.Cut(s, " ")
		count[name]++
	}
	return fmt.Sprint(count)
}
