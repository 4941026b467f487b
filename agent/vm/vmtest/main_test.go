// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// exitLine is the last line of the machine's console.
const exitLine = "VMTEST EXIT "

func TestMain(m *testing.M) {
	if os.Getpid() != 1 {
		os.Exit(m.Run())
	}
	code := 99
	err := prepare()
	if err == nil {
		code, err = child()
	}
	if err != nil {
		fmt.Println("outer machine:", err)
	}
	fmt.Printf("%s%d\n", exitLine, code)
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		panic(err)
	}
}

// prepare makes of the initramfs what the drivers need of a node.
func prepare() error {
	for _, m := range [][2]string{{"/proc", "proc"}, {"/sys", "sysfs"}, {"/dev", "devtmpfs"}, {"/run", "tmpfs"}, {"/tmp", "tmpfs"}} {
		if err := os.MkdirAll(m[0], 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m[1], m[0], m[1], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[0], err)
		}
	}
	if err := unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("cgroup2: %w", err)
	}
	if err := unix.Mount("securityfs", "/sys/kernel/security", "securityfs", 0, ""); err == nil {
		lsm, err := os.ReadFile("/sys/kernel/security/lsm")
		fmt.Println("security modules:", string(lsm), err)
	}
	names, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	sort.Strings(names)
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		if err = errors.Join(ignore(err, unix.EEXIST, unix.ENODEV, unix.EOPNOTSUPP), f.Close()); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

func ignore(err error, which ...error) error {
	for _, w := range which {
		if errors.Is(err, w) {
			return nil
		}
	}
	return err
}

// child runs the tests and, as PID 1 must, collects whatever ends meanwhile.
func child() (int, error) {
	// How long it may take is for the outside to say (bootLimit, attackLimit).
	args := []string{"/init", "-test.v", "-test.run=^TestDrivers$", "-test.timeout=0", "-test.failfast=false"}
	pid, err := syscall.ForkExec("/init", args, &syscall.ProcAttr{Env: []string{"ZOS_VMTEST=inside", "PATH=/bin:/usr/bin", "TMPDIR=/tmp"}, Files: []uintptr{0, 1, 2}})
	if err != nil {
		return 99, err
	}
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 99, err
		}
		if ended == pid {
			if status.Signaled() {
				return 128 + int(status.Signal()), nil
			}
			return status.ExitStatus(), nil
		}
	}
}
