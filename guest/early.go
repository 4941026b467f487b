// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cgroupRoot is PID 1's; the workload has none mounted.
const cgroupRoot = "/cgroup"

// earlyMounts makes PID 1's own view: it stays in the initramfs.
func earlyMounts() error {
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		target, kind string
		flags        uintptr
	}{
		{"/proc", "proc", safe}, {"/sys", "sysfs", safe}, {"/dev", "devtmpfs", unix.MS_NOSUID | unix.MS_NOEXEC}, {cgroupRoot, "cgroup2", safe},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := os.MkdirAll("/stage", 0o755); err != nil {
		return err
	}
	// A kernel that has lost its footing must not go on serving.
	for name, value := range map[string]string{"panic_on_oops": "1", "kptr_restrict": "2", "dmesg_restrict": "1"} {
		if err := os.WriteFile("/proc/sys/kernel/"+name, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

// loadModules loads one stage of what the image's builder put there (package
// modules, GuestStages), in the order of the names, which is the order of
// dependence.
func loadModules(stage string) error {
	files, err := filepath.Glob("/modules/" + stage + "/*.ko")
	if err != nil {
		return err
	}
	sort.Strings(files)
	for _, name := range files {
		if err := loadModule(name); err != nil {
			return fmt.Errorf("load %s: %w", filepath.Base(name), err)
		}
	}
	return nil
}

// closeKernel lets nothing be added to the kernel that runs, and no other take
// its place, whatever capabilities a workload has: both switches work once.
func closeKernel(sysctl string) error {
	for _, name := range []string{"modules_disabled", "kexec_load_disabled"} {
		err := os.WriteFile(filepath.Join(sysctl, name), []byte("1"), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel that cannot do it needs no switch
			return fmt.Errorf("close the kernel: %w", err)
		}
	}
	return nil
}

func loadModule(name string) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// The disk is looked for later (findDisk): its driver may take its time.
	var params string
	if strings.HasSuffix(name, "-virtio_blk.ko") {
		params = "async_probe=1"
	}
	err = unix.FinitModule(int(f.Fd()), params, 0)
	// EEXIST: built in or there already. ENODEV: a driver for a processor
	// feature or device that this machine lacks; what is needed and missing
	// fails where it is needed.
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// diskWait is how long a driver may take to find its disks.
const diskWait = 10 * time.Second

// findDisk finds a virtio disk by its serial number; vda or vdb depends on
// the order of discovery.
func findDisk(serial string) (string, error) {
	deadline := time.Now().Add(diskWait)
	for {
		names, err := filepath.Glob("/sys/block/*/serial")
		if err != nil {
			return "", err
		}
		var found []string
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				return "", fmt.Errorf("disks: %w", err)
			}
			if strings.TrimSpace(string(b)) == serial {
				found = append(found, "/dev/"+filepath.Base(filepath.Dir(name)))
			}
		}
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1:
			return "", fmt.Errorf("disks %v all have the serial %q", found, serial)
		case time.Now().After(deadline):
			return "", fmt.Errorf("no disk with the serial %q after %s", serial, diskWait)
		}
		time.Sleep(5 * time.Millisecond) // sysfs has no event that would be simpler
	}
}

// setClock takes the node's time: a VM has none of its own that anybody
// vouches for.
func setClock(ms int64) error {
	if ms <= 0 {
		return fmt.Errorf("clock: %d ms", ms)
	}
	t := unix.NsecToTimespec(ms * 1e6)
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &t); err != nil {
		return fmt.Errorf("clock: %w", err)
	}
	return nil
}

// seeded tells whether the kernel's generator gives bytes at once. On a
// processor without an instruction for that it may not, and then waits for a
// device.
func seeded() bool {
	var b [1]byte
	n, err := unix.Getrandom(b[:], unix.GRND_NONBLOCK)
	return err == nil && n == len(b)
}

// entropySize is what the agent sends.
const entropySize = 32

// addEntropy mixes the node's bytes into the kernel's pool and counts them.
func addEntropy(b []byte) (err error) {
	if len(b) != entropySize {
		return fmt.Errorf("entropy: %d bytes, want %d", len(b), entropySize)
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("entropy: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info := struct { // struct rand_pool_info
		bits, size int32
		data       [entropySize]byte
	}{bits: entropySize * 8, size: entropySize, data: [entropySize]byte(b)}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info))); e != 0 {
		return fmt.Errorf("entropy: %w", e)
	}
	return nil
}
