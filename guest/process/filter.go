// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The line to the agent is a vsock, and whoever can open one in the guest can
// dial the agent beside PID 1. Neither a network namespace nor a capability
// keeps a process from that, so a seccomp filter does: what is started on the
// Thread, and all that comes of it, gets no socket of the family AF_VSOCK.
//
//   - socket and socketpair refuse the family with EAFNOSUPPORT, as a kernel
//     without it would. Only the lower half of the argument counts, since the
//     kernel takes an int and ignores the rest.
//   - io_uring makes sockets that no filter sees; its set-up is refused with
//     EPERM, to which programs fall back as in most containers.
//   - Another ABI has other numbers, and i386 hides the family behind a pointer
//     (socketcall). x32 is answered with ENOSYS, as by a kernel without it; a
//     call of another architecture kills the process, whose end by SIGSYS then
//     stands in its exit record.
//
// A filter cannot be taken off again, and of several the strictest counts, so
// it holds against a workload with every capability. It is set with
// no_new_privs, which Drop sets in any case: root needs none for a filter, but
// no program of the image is meant to gain rights at exec. The capabilities
// and the user of the signed spec do not suffer: they are given before exec
// (bounding set, ambient set, setuid by PID 1), none by exec.
//
// What stays: a capability in a signed spec that is not one of Contained gives
// a workload the guest's kernel or its PID 1, and with it the line. That is what
// was signed; the agent believes no guest.

// abi is what a filter must know of an architecture.
type abi struct {
	audit uint32 // AUDIT_ARCH of the native calls
	alien uint32 // from this number on, calls are of a second ABI; 0 is none
}

// x32Bit marks the calls of x32, which have amd64's AUDIT_ARCH.
const x32Bit = 0x40000000

var abis = map[string]abi{
	"amd64": {audit: unix.AUDIT_ARCH_X86_64, alien: x32Bit},
	"arm64": {audit: unix.AUDIT_ARCH_AARCH64},
}

// Offsets in struct seccomp_data on a little-endian machine.
const (
	dataNr   = 0
	dataArch = 4
	dataArg0 = 16 // its lower half
	word     = 4
)

func refuse(e unix.Errno) bpf.RetConstant {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(e)}
}

// program is the filter as the kernel runs it, for one architecture.
func program(a abi) []bpf.Instruction {
	code := []bpf.Instruction{
		bpf.LoadAbsolute{Off: dataArch, Size: word},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: a.audit, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.LoadAbsolute{Off: dataNr, Size: word},
	}
	if a.alien != 0 {
		code = append(code,
			bpf.JumpIf{Cond: bpf.JumpLessThan, Val: a.alien, SkipTrue: 1},
			refuse(unix.ENOSYS))
	}
	return append(code,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_IO_URING_SETUP, SkipTrue: 1},
		refuse(unix.EPERM),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_SOCKET, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_SOCKETPAIR, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
		bpf.LoadAbsolute{Off: dataArg0, Size: word},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_VSOCK, SkipTrue: 1},
		refuse(unix.EAFNOSUPPORT),
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
}

// denyVsock sets the filter on the calling thread, for it and all its children.
// The program's other threads keep what they may.
func denyVsock() error {
	a, ok := abis[runtime.GOARCH]
	if !ok {
		return fmt.Errorf("seccomp: no filter for %s", runtime.GOARCH)
	}
	raw, err := bpf.Assemble(program(a))
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); e != 0 {
		return fmt.Errorf("seccomp: %w", e)
	}
	return nil
}
