// SPDX-License-Identifier: Apache-2.0

package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// childEnv makes the test program the process under the filter; its value is
// what is to be executed at the end.
const childEnv = "ZOS_FILTER_CHILD"

func TestMain(m *testing.M) {
	if next, ok := os.LookupEnv(childEnv); ok {
		filtered(next)
	}
	os.Exit(m.Run())
}

// filtered tries what it must not on a thread with the filter, tells the
// answers, and becomes another program.
func filtered(next string) {
	runtime.LockOSThread()
	set := func() error { return Drop(nil) } // as PID 1 does
	switch {
	case os.Getenv("ZOS_FILTER_OFF") != "":
		set = func() error { return nil }
	case os.Geteuid() != 0:
		set = func() error { return errors.Join(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), denyVsock()) }
	}
	if err := set(); err != nil {
		panic(err)
	}
	for _, c := range attempts() {
		_, _, e := unix.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], 0, 0)
		fmt.Printf("%s=%s\n", c.what, answer(e))
	}
	panic(unix.Exec(next, []string{next}, nil))
}

func answer(e syscall.Errno) string {
	if e == 0 {
		return "ok"
	}
	return unix.ErrnoName(e)
}

type attempt struct {
	what string
	nr   uintptr
	args [4]uintptr
	want string // under the filter
}

func attempts() []attempt {
	const high = 1 << 32
	all := []attempt{
		{"vsock", unix.SYS_SOCKET, [4]uintptr{unix.AF_VSOCK, unix.SOCK_STREAM}, "EAFNOSUPPORT"},
		{"vsock with a high half", unix.SYS_SOCKET, [4]uintptr{high | unix.AF_VSOCK, unix.SOCK_STREAM}, "EAFNOSUPPORT"},
		{"vsock pair", unix.SYS_SOCKETPAIR, [4]uintptr{unix.AF_VSOCK, unix.SOCK_STREAM}, "EAFNOSUPPORT"},
		{"io_uring", unix.SYS_IO_URING_SETUP, [4]uintptr{1}, "EPERM"},
		{"inet", unix.SYS_SOCKET, [4]uintptr{unix.AF_INET, unix.SOCK_STREAM}, "ok"},
		{"unix", unix.SYS_SOCKET, [4]uintptr{unix.AF_UNIX, unix.SOCK_STREAM}, "ok"},
		{"other call with the number", unix.SYS_FCNTL, [4]uintptr{unix.AF_VSOCK + 1000, unix.F_GETFD}, "EBADF"},
	}
	if runtime.GOARCH == "amd64" {
		all = append(all, attempt{"x32", x32Bit | unix.SYS_SOCKET, [4]uintptr{unix.AF_VSOCK, unix.SOCK_STREAM}, "ENOSYS"})
	}
	return all
}

// TestFilterProgram runs the filter on a BPF machine: every call, also those
// that this kernel cannot make.
func TestFilterProgram(t *testing.T) {
	const audit386 = 0x40000003
	deny := func(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }
	for arch, a := range abis {
		vm, err := bpf.NewVM(program(a))
		if err != nil {
			t.Fatal(err)
		}
		type call struct {
			arch, nr uint32
			arg0     uint64
			want     uint32
		}
		calls := []call{
			{a.audit, unix.SYS_SOCKET, unix.AF_VSOCK, deny(unix.EAFNOSUPPORT)},
			{a.audit, unix.SYS_SOCKET, 0xffffffff<<32 | unix.AF_VSOCK, deny(unix.EAFNOSUPPORT)},
			{a.audit, unix.SYS_SOCKETPAIR, unix.AF_VSOCK, deny(unix.EAFNOSUPPORT)},
			{a.audit, unix.SYS_IO_URING_SETUP, 8, deny(unix.EPERM)},
			{audit386, unix.SYS_SOCKET, unix.AF_INET, unix.SECCOMP_RET_KILL_PROCESS},
			{0, unix.SYS_READ, 0, unix.SECCOMP_RET_KILL_PROCESS},
			{a.audit, unix.SYS_READ, unix.AF_VSOCK, unix.SECCOMP_RET_ALLOW},
		}
		for family := range uint64(unix.AF_MAX) {
			if family != unix.AF_VSOCK {
				calls = append(calls, call{a.audit, unix.SYS_SOCKET, family, unix.SECCOMP_RET_ALLOW})
			}
		}
		if a.alien != 0 {
			calls = append(calls, call{a.audit, a.alien | unix.SYS_SOCKET, unix.AF_INET, deny(unix.ENOSYS)},
				call{a.audit, 0xffffffff, 0, deny(unix.ENOSYS)}, call{a.audit, a.alien - 1, 0, unix.SECCOMP_RET_ALLOW})
		}
		for _, c := range calls {
			// This machine reads big-endian words, the kernel native ones: each
			// word stands where the kernel of a little-endian processor has it.
			data := make([]byte, 64)
			for off, v := range map[int]uint32{dataNr: c.nr, dataArch: c.arch, dataArg0: uint32(c.arg0), dataArg0 + word: uint32(c.arg0 >> 32)} {
				binary.BigEndian.PutUint32(data[off:], v)
			}
			got, err := vm.Run(data)
			if err != nil || uint32(got) != c.want {
				t.Errorf("%s: call %#x of %#x with %#x: %#x, want %#x (%v)", arch, c.nr, c.arch, c.arg0, got, c.want, err)
			}
		}
	}
}

// exit386 is a whole program for i386: exit(42) by int 0x80.
func exit386() []byte {
	const base, header, entry = 0x08048000, 52, 52 + 32
	code := []byte{0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80}
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2) // ET_EXEC
	b = le.AppendUint16(b, 3) // EM_386
	for _, v := range []uint32{1, base + entry, header, 0, 0} {
		b = le.AppendUint32(b, v)
	}
	for _, v := range []uint16{header, 32, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	size := uint32(entry + len(code))
	for _, v := range []uint32{1, 0, base, base, size, size, 5, 0x1000} { // PT_LOAD, readable and executable
		b = le.AppendUint32(b, v)
	}
	return append(b, code...)
}

// TestFilterHolds is the same on this kernel, in a child, beside one without
// the filter that shows what the filter changed.
func TestFilterHolds(t *testing.T) {
	if _, ok := abis[runtime.GOARCH]; !ok {
		t.Skipf("SKIP filter: none for %s", runtime.GOARCH)
	}
	foreign := filepath.Join(t.TempDir(), "foreign")
	if err := os.WriteFile(foreign, exit386(), 0o700); err != nil {
		t.Fatal(err)
	}
	child := func(off string) (map[string]string, error) {
		c := exec.Command(os.Args[0])
		c.Env = []string{childEnv + "=" + foreign, "ZOS_FILTER_OFF=" + off}
		out, err := c.Output()
		got := map[string]string{}
		for line := range strings.Lines(string(out)) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			got[k] = v
		}
		return got, err
	}
	free, freeEnd := child("1")
	held, heldEnd := child("")
	changed := 0
	for _, c := range attempts() {
		if held[c.what] != c.want {
			t.Errorf("%s: %s, want %s (without the filter %s)", c.what, held[c.what], c.want, free[c.what])
		}
		if held[c.what] != free[c.what] {
			changed++
		}
	}
	if changed == 0 {
		t.Errorf("the filter changed nothing: %v", free)
	}
	status := func(err error) syscall.WaitStatus {
		var e *exec.ExitError
		if !errors.As(err, &e) {
			t.Fatalf("the child: %v", err)
		}
		return e.Sys().(syscall.WaitStatus)
	}
	if s := status(freeEnd); s.ExitStatus() != 42 {
		t.Logf("SKIP foreign architecture: this kernel does not run i386 (%v)", freeEnd)
		return
	}
	if s := status(heldEnd); !s.Signaled() || s.Signal() != syscall.SIGSYS {
		t.Errorf("a program of another architecture: %v, want SIGSYS", heldEnd)
	}
}
