// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// TestFilter runs the filter's program over system calls.
func TestFilter(t *testing.T) {
	for arch, audit := range arches {
		raw, err := filterProgram(arch)
		if err != nil {
			t.Fatal(err)
		}
		code, all := bpf.Disassemble(raw)
		if !all {
			t.Fatal("it cannot be read back")
		}
		vm, err := bpf.NewVM(code)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			what     string
			nr, arch uint32
			want     uint32
		}{
			{"read", unix.SYS_READ, audit, unix.SECCOMP_RET_ALLOW},
			{"connect", unix.SYS_CONNECT, audit, unix.SECCOMP_RET_ALLOW},
			{"execve", unix.SYS_EXECVE, audit, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
			{"ptrace", unix.SYS_PTRACE, audit, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
			{"io_uring_setup", unix.SYS_IO_URING_SETUP, audit, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
			{"clone3", unix.SYS_CLONE3, audit, unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
			{"x32", x32Bit | unix.SYS_READ, audit, unix.SECCOMP_RET_KILL_PROCESS},
			{"another architecture", unix.SYS_READ, unix.AUDIT_ARCH_I386, unix.SECCOMP_RET_KILL_PROCESS},
		} {
			// The machine of x/net reads big endian, the kernel's its own order.
			data := make([]byte, 64)
			binary.BigEndian.PutUint32(data[dataNr:], c.nr)
			binary.BigEndian.PutUint32(data[dataArch:], c.arch)
			got, err := vm.Run(data)
			if err != nil || uint32(got) != c.want {
				t.Errorf("%s, %s: %#x, %v; want %#x", arch, c.what, got, err, c.want)
			}
		}
	}
	if _, err := filterProgram("riscv64"); err == nil {
		t.Error("a filter for an unknown architecture")
	}
}
