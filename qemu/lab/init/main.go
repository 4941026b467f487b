// SPDX-License-Identifier: Apache-2.0

// Command init is PID 1 of a lab (package lab): it loads the modules of its
// initramfs in the order of their names, says that it is ready, and does what
// it reads from the serial line, one JSON object a line, each of which it
// answers with a last line of "lab: exit" and a code. No node image carries it.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/kernel/kmod"
	"github.com/zos-node/zos/qemu/lab/wire"
)

func main() {
	if err := prepare(); err != nil {
		fmt.Println(wire.Failed, err)
	} else {
		fmt.Println(wire.Ready)
		err := obey(os.Stdin)
		fmt.Println(wire.Failed, err)
	}
	// A PID 1 that ends takes the kernel with it; whoever holds the serial line turns
	// the machine off.
	select {}
}

func prepare() error {
	os.Clearenv()
	for name, value := range map[string]string{"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": "/tmp", "HOME": "/tmp", "LD_LIBRARY_PATH": "/lib64"} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	for dir, kind := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs", "/tmp": "tmpfs", "/run": "tmpfs"} {
		if err := errors.Join(os.MkdirAll(dir, 0o755), unix.Mount(kind, dir, kind, 0, "")); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if err := quiet(os.Stdin); err != nil {
		return err
	}
	files, err := filepath.Glob(wire.ModuleDir + "/*")
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := kmod.Insert(f); err != nil {
			return fmt.Errorf("load %s: %w", f, err)
		}
	}
	return nil
}

// quiet has the terminal not repeat what is sent to it.
func quiet(tty *os.File) error {
	t, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err == nil {
		t.Lflag &^= unix.ECHO
		err = unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, t)
	}
	if err != nil {
		return fmt.Errorf("the serial line: %w", err)
	}
	return nil
}

func obey(in io.Reader) error {
	for scan := bufio.NewScanner(in); ; {
		if !scan.Scan() {
			return fmt.Errorf("the serial line ended: %w", errors.Join(scan.Err(), io.EOF))
		}
		var c wire.Command
		if len(scan.Bytes()) == 0 {
			continue
		}
		code := 0
		if err := json.Unmarshal(scan.Bytes(), &c); err != nil {
			fmt.Println("lab: no command:", err)
			code = -1
		} else if err := do(c); err != nil {
			fmt.Println("lab:", err)
			code = -1
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				code = exit.ExitCode()
			}
		}
		fmt.Printf("\n%s %d\n", wire.Exit, code)
	}
}

func do(c wire.Command) error {
	switch {
	case len(c.Run) > 0:
		cmd := exec.Command(c.Run[0], c.Run[1:]...)
		// A pipe and no terminal: nobody draws a progress bar.
		cmd.Stdout = struct{ io.Writer }{os.Stdout}
		cmd.Stderr = cmd.Stdout
		return cmd.Run()
	case c.Mount != nil && c.Mount.Unseen:
		return apart(*c.Mount)
	case c.Mount != nil:
		return mount(*c.Mount)
	case c.Unmount != "":
		return unix.Unmount(c.Unmount, 0)
	case c.Off:
		return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	return errors.New("nothing to do")
}

func mount(m wire.Mount) error {
	var flags uintptr
	if m.ReadOnly {
		flags = unix.MS_RDONLY
	}
	if err := errors.Join(os.MkdirAll(m.At, 0o755), unix.Mount(m.Device, m.At, m.Kind, flags, "")); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.Device, m.At, err)
	}
	return nil
}

// apart mounts in a mount namespace of one thread, which stays until the machine
// is off: the list of mounts of everybody else does not have it.
func apart(m wire.Mount) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = mount(m)
		}
		done <- err
		select {}
	}()
	return <-done
}
