// SPDX-License-Identifier: Apache-2.0

// Package mount builds the node's file system from a table: what is mounted
// where, in which order, and whether the node can live without it. The root
// stays the initramfs; nothing is pivoted, everything is RAM.
package mount

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Point is one line of the table.
type Point struct {
	Source, Target, Type string
	Flags                uintptr
	Data                 string
	Optional             bool // a kernel or firmware without it is fine
}

const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// Table is the node's file system, parents first.
var table = []Point{
	{"proc", "/proc", "proc", safe, "hidepid=invisible", false},
	{"sysfs", "/sys", "sysfs", safe, "", false},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0755", false},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,ptmxmode=0666", false},
	{"shm", "/dev/shm", "tmpfs", safe, "mode=1777,size=10%", false},
	{"run", "/run", "tmpfs", safe, "mode=0755,size=60%", false},
	{"tmp", "/tmp", "tmpfs", safe, "mode=1777,size=10%", false},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", safe, "nsdelegate,memory_recursiveprot", false},
	{"securityfs", "/sys/kernel/security", "securityfs", safe | unix.MS_RDONLY, "", true},
	// The end of the kernel's log that a crash keeps: Go's last words are long.
	{"pstore", "/sys/fs/pstore", "pstore", safe, "kmsg_bytes=65536", true},
	// Reports for the ledger have room of their own: a full /run must not
	// silence what tells of it.
	{"lastwords", "/run/lastwords", "tmpfs", safe, "mode=0700,size=1m", false},
}

// Driver is a point that needs a module, on machines where the path In is
// there: what nobody has a use for costs no time.
type Driver struct {
	Point
	Module, In string
}

// drivers is mounted after the first modules are loaded.
var drivers = []Driver{
	{Point{"efivarfs", "/sys/firmware/efi/efivars", "efivarfs", safe | unix.MS_RDONLY, "", true}, "efivarfs", "/sys/firmware/efi"},
}

// Table returns what is mounted first of all.
func Table() []Point { return slices.Clone(table) }

// Drivers returns what is mounted after the first modules are loaded, on a
// machine on which exists tells of paths.
func Drivers(exists func(path string) bool) []Driver { return here(drivers, exists) }

func here(all []Driver, exists func(path string) bool) []Driver {
	return slices.DeleteFunc(slices.Clone(all), func(d Driver) bool { return !exists(d.In) })
}

// All mounts a table in order. The error joins what failed and was needed;
// the rest is mounted all the same, so that the failure can be shown.
func All(points []Point, mount func(Point) error) error {
	var errs []error
	for _, p := range points {
		if err := mount(p); err != nil && !p.Optional {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Mount mounts one point and makes its folder where there is none.
func Mount(p Point) error {
	if err := os.MkdirAll(p.Target, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", p.Target, err)
	}
	err := unix.Mount(p.Source, p.Target, p.Type, p.Flags, p.Data)
	if errors.Is(err, unix.EINVAL) && p.Data != "" && p.Optional {
		err = unix.Mount(p.Source, p.Target, p.Type, p.Flags, "")
	}
	if err != nil {
		return fmt.Errorf("mount %s on %s: %w", p.Type, p.Target, err)
	}
	return nil
}

// Undo lists what has to be unmounted at the end, innermost first: every
// mount that could hold data of a disk. Kernel file systems stay.
func Undo(mountinfo string) []string {
	var targets []string
	for _, line := range strings.Split(mountinfo, "\n") {
		own, rest, found := strings.Cut(line, " - ")
		f, g := strings.Fields(own), strings.Fields(rest)
		if !found || len(f) < 5 || len(g) < 2 || !strings.HasPrefix(g[1], "/dev/") {
			continue
		}
		targets = append(targets, f[4])
	}
	slices.Reverse(targets)
	return targets
}
