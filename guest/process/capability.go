// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Capability is a number from <linux/capability.h>.
type Capability uintptr

// names in the order of their numbers.
var names = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
	"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN",
	"CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
	"CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

func (c Capability) String() string {
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("CAP_%d", c)
}

// Capabilities turns names into numbers; an unknown or repeated name is an
// error, since a process with less than its spec says is not that spec's.
func Capabilities(list []string) ([]Capability, error) {
	var caps []Capability
	seen := map[string]bool{}
	for _, name := range list {
		n := -1
		for i, known := range names {
			if known == name {
				n = i
			}
		}
		if n < 0 || seen[name] {
			return nil, fmt.Errorf("capability %q is unknown or named twice", name)
		}
		seen[name] = true
		caps = append(caps, Capability(n))
	}
	return caps, nil
}

// ofTheKernel says whether a capability is the guest's kernel: with it a
// workload reads or writes the kernel's memory or PID 1's, and may switch off in
// its guest what the guest switched on, the check of its disk among it. Loading
// a module is not of these: PID 1 ends that for good before a workload runs.
func (c Capability) ofTheKernel() bool {
	switch c {
	case unix.CAP_SYS_RAWIO, unix.CAP_SYS_PTRACE, unix.CAP_SYS_ADMIN, unix.CAP_PERFMON, unix.CAP_BPF:
		return true
	}
	return false
}

// Contained lists the capabilities that do not give a workload its guest's
// kernel, by the order of their numbers.
func Contained() (list []string) {
	for i, name := range names {
		if !Capability(i).ofTheKernel() {
			list = append(list, name)
		}
	}
	return list
}

// Signal turns a name such as "SIGTERM" into its number.
func Signal(name string) (syscall.Signal, error) {
	n := unix.SignalNum(name)
	if n == 0 {
		return 0, fmt.Errorf("signal %q is unknown", name)
	}
	return n, nil
}
