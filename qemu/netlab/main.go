// SPDX-License-Identifier: Apache-2.0

// Command netlab is the init of a test machine: it loads the modules that it
// was given, runs a test program that was built into its initramfs, says how
// that ended, and turns the machine off. With it, tests of the uplink run on
// the node's own kernel, which has bonds and VLANs where the machine that
// builds may have none. No node image carries it.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/kernel/kmod"
)

const (
	moduleDir = "/modules"
	testPath  = "/uplink.test"
	// argPath holds the pattern of the tests to run.
	argPath = "/tests"
	// verdict begins the last line.
	verdict = "netlab: "
)

func main() {
	if err := lab(); err != nil {
		fmt.Println(verdict+"FAIL:", err)
	} else {
		fmt.Println(verdict + "ok")
	}
	// The serial port has to get rid of the line.
	time.Sleep(time.Second)
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func lab() error {
	for dir, kind := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs", "/tmp": "tmpfs", "/run": "tmpfs"} {
		if err := errors.Join(os.MkdirAll(dir, 0o755), unix.Mount(kind, dir, kind, 0, "")); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	files, err := filepath.Glob(moduleDir + "/*")
	if err != nil {
		return err
	}
	for _, f := range files { // in the order of their names
		if err := kmod.Insert(f); err != nil {
			return fmt.Errorf("load %s: %w", f, err)
		}
	}
	pattern, err := os.ReadFile(argPath)
	if err != nil {
		return err
	}
	cmd := exec.Command(testPath, "-test.v", "-test.run", string(pattern))
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=/tmp", "LD_LIBRARY_PATH=/lib64"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	return cmd.Run()
}
