// SPDX-License-Identifier: Apache-2.0

// Package shortage notices that the node has run out of something that it
// cannot make more of: memory, so that the kernel ended a program, or room for
// files. The node goes on with what it has; what is short is said.
package shortage

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// VMStat counts the programs that the kernel ended for want of memory.
	VMStat  = "/proc/vmstat"
	counter = "oom_kill "
	mib     = 1 << 20
	// A store is full with less than one part in fullPart free, and well again
	// with more than one in wellPart.
	fullPart = 20
	wellPart = 10
)

// Store is a file system that the node writes to.
type Store struct {
	Dir  string
	What string // for people
	Do   string // what helps when it is full
}

// Stores are those of a node. One that is not there is not full.
func Stores() []Store {
	return []Store{
		{"/run", "the node's storage", "stop a deployment with large volumes or images, or give the machine more memory"},
		{"/run/zos/kept", "the node's state partition", "report this: nothing that a node keeps is as large; a reset by the console's menu makes the partition anew"},
	}
}

// Killed reads how many programs were ended since the boot.
func Killed(vmstat string) (int64, error) {
	b, err := os.ReadFile(vmstat)
	if err != nil {
		return 0, fmt.Errorf("memory: %w", err)
	}
	for _, l := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, counter); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("memory: %s: %w", vmstat, err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("memory: %s does not count ended programs", vmstat)
}

// Who picks the newest line of the kernel's log that names an ended program.
func Who(log string) string {
	const sign = "Out of memory: "
	for lines := strings.Split(log, "\n"); len(lines) > 0; lines = lines[:len(lines)-1] {
		if _, text, ok := strings.Cut(lines[len(lines)-1], sign); ok {
			return sign + text
		}
	}
	return "the kernel's log does not say which"
}

// KernelLog is the kernel's log as it is now.
func KernelLog() (string, error) {
	const readAll, size = 3, 10 // SYSLOG_ACTION_READ_ALL and _SIZE_BUFFER
	n, err := unix.Klogctl(size, nil)
	if err != nil {
		return "", fmt.Errorf("kernel's log: %w", err)
	}
	b := make([]byte, n)
	if n, err = unix.Klogctl(readAll, b); err != nil {
		return "", fmt.Errorf("kernel's log: %w", err)
	}
	return string(b[:n]), nil
}

// Room is what a file system has.
type Room struct{ FreeMiB, TotalMiB int64 }

// Look measures it.
func Look(dir string) (Room, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Room{}, fmt.Errorf("room in %s: %w", dir, err)
	}
	return Room{int64(st.Bavail) * st.Bsize / mib, int64(st.Blocks) * st.Bsize / mib}, nil
}

// Full decides, given what was decided before: on the border it stays so.
func (r Room) Full(before bool) bool {
	if before {
		return r.FreeMiB*wellPart < r.TotalMiB
	}
	return r.FreeMiB*fullPart < r.TotalMiB
}
