// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Attempt is one way to get rid of the check, and how the kernel refused it;
// an empty answer is one that worked.
type Attempt struct{ What, Answer string }

// attack tries, as whoever it runs as, to switch the check of its disk off, and
// then reads a file again and again, past the cache.
func attack(file string) {
	all := attempts()
	b, err := json.Marshal(all)
	fail(err)
	fmt.Println(string(b))
	again(file)
}

// again reads a file from the disk until the kernel has enough of it.
func again(file string) {
	for {
		f, err := os.Open(file)
		fail(err)
		// What is in the cache was checked when it came there.
		fail(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		fmt.Println("reading")
		b := make([]byte, 1<<20)
		n, err := f.Read(b)
		fmt.Println("read", n, err)
		fail(f.Close())
		time.Sleep(300 * time.Millisecond)
	}
}

func attempts() []Attempt {
	disk, verity := number("/sys/block/vda/dev"), number("/sys/block/dm-0/dev")
	const control = 10<<8 | 236 // device-mapper's
	list := []struct {
		what string
		do   func() error
	}{
		{"control: a device that a workload has", func() error { return open("/dev/null") }},
		{"device-mapper: open its control", func() error { return open("/dev/mapper/control") }},
		{"device-mapper: make its control, remove the device", func() error { return remade(unix.S_IFCHR, control, removeRoot) }},
		{"disk: open it", func() error { return open("/dev/vda") }},
		{"disk: make its device, write to it", func() error { return remade(unix.S_IFBLK, disk, scribble) }},
		{"verity device: make its device, write to it", func() error { return remade(unix.S_IFBLK, verity, scribble) }},
		{"memory: make /dev/mem, write to it", func() error { return remade(unix.S_IFCHR, 1<<8|1, scribble) }},
		{"memory: /proc/kcore", func() error {
			b := make([]byte, 64)
			f, err := os.Open("/proc/kcore")
			if err != nil {
				return err
			}
			n, err := f.Read(b)
			if err == nil && n == 0 {
				err = errors.New("empty")
			}
			return errors.Join(err, f.Close())
		}},
		{"ports: iopl", func() error { return call(unix.SYS_IOPL, 3, 0, 0) }},
		{"sysrq", func() error { return write("/proc/sysrq-trigger", "u") }},
		{"sysctl: panic_on_oops off", func() error { return write("/proc/sys/kernel/panic_on_oops", "0") }},
		{"sysctl: core_pattern", func() error { return write("/proc/sys/kernel/core_pattern", "|/app check") }},
		{"sysfs: disk's cache", func() error { return write("/sys/block/vda/queue/write_cache", "write through") }},
		{"sysfs: suspend", func() error { return write("/sys/power/state", "mem") }},
		{"module: load one", func() error {
			b := []byte("\x7fELF")
			var none byte
			return call(unix.SYS_INIT_MODULE, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&none)))
		}},
		{"module: unload dm_verity", func() error { return unix.DeleteModule("dm_verity", unix.O_TRUNC) }},
		{"kernel: kexec another", func() error { return call(unix.SYS_KEXEC_LOAD, 0, 0, 0) }},
		{"kernel: load a BPF program", func() error { return bpf() }},
		{"root: remount it writable", func() error { return unix.Mount("", "/", "", unix.MS_REMOUNT, "") }},
		{"root: unmount it", func() error { return unix.Unmount("/", unix.MNT_DETACH) }},
		{"root: mount over it", func() error { return unix.Mount("tmpfs", "/", "tmpfs", 0, "") }},
		{"root: mount a devtmpfs", func() error { return unix.Mount("devtmpfs", "/tmp", "devtmpfs", 0, "") }},
		{"root: write a file of it", func() error { return write("/from-image", "other") }},
		{"root: another by pivot_root", func() error { return unix.PivotRoot("/tmp", "/tmp") }},
		{"sysctl: remount /proc/sys writable", func() error { return unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, "") }},
		{"code: run it from a tmpfs", func() error { return copied("/tmp/own") }},
		{"PID 1: its root", func() error { return open("/proc/1/root/init") }},
		{"PID 1: its memory", func() error { return open("/proc/1/mem") }},
		{"PID 1: trace it", func() error { return unix.PtraceAttach(1) }},
		{"name space: a new user, then device-mapper", func() error { return inNamespace() }},
	}
	out := make([]Attempt, len(list))
	for i, a := range list {
		out[i] = Attempt{a.what, try(a.do())}
	}
	return out
}

// number of a device from sysfs, "254:0".
func number(file string) int {
	b, err := os.ReadFile(file)
	fail(err)
	major, minor, _ := strings.Cut(strings.TrimSpace(string(b)), ":")
	x, err := strconv.Atoi(major)
	fail(err)
	y, err := strconv.Atoi(minor)
	fail(err)
	return int(unix.Mkdev(uint32(x), uint32(y)))
}

func open(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// write writes to a file that is there: of one that is not, also of one whose name
// is wrong here, a read-only file system would say the same if it were to be made.
func write(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func call(nr, a, b, c uintptr) error {
	if _, _, e := unix.Syscall6(nr, a, b, c, 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// remade makes a device where the workload may write, and uses it.
func remade(kind uint32, number int, use func(*os.File) error) error {
	var first error
	for _, dir := range []string{"/tmp", "/dev/shm", "/dev"} {
		name := filepath.Join(dir, "made")
		err := unix.Mknod(name, kind|0o600, number)
		if err == nil {
			var f *os.File
			if f, err = os.OpenFile(name, os.O_RDWR, 0); err == nil {
				return errors.Join(use(f), f.Close(), os.Remove(name))
			}
			fail(os.Remove(name))
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func scribble(f *os.File) error {
	_, err := f.WriteAt(make([]byte, 4096), 4096)
	return err
}

// removeRoot is DM_REMOVE_ALL.
func removeRoot(f *os.File) error {
	b := make([]byte, 312)
	binary.NativeEndian.PutUint32(b, 4)
	binary.NativeEndian.PutUint32(b[12:], 312)
	binary.NativeEndian.PutUint32(b[16:], 312)
	return call(unix.SYS_IOCTL, f.Fd(), unix.DM_REMOVE_ALL, uintptr(unsafe.Pointer(&b[0])))
}

// bpf loads "return 0" as a kprobe's program.
func bpf() error {
	code := [2]uint64{0xb7, 0x95}
	license := []byte("GPL\x00")
	attr := struct {
		kind, count    uint32
		code, license  uint64
		level, size    uint32
		buffer         uint64
		version, flags uint32
	}{kind: 2, count: 2, code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	return call(unix.SYS_BPF, 5, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
}

func copied(to string) error {
	b, err := os.ReadFile("/app")
	fail(err)
	fail(os.WriteFile(to, b, 0o700))
	return exec.Command(to, "inside").Run()
}

// inNamespace runs this program as root of a user name space of its own; its
// exit code is the errno of what it tried there.
func inNamespace() error {
	cmd := exec.Command("/app", "inside")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return syscall.Errno(exit.ExitCode())
	}
	return err
}

// inside is what the child of inNamespace tries. It ends with 0 when anything
// worked; run elsewhere, that it runs at all means that foreign code does.
func inside() {
	code := 0
	for _, do := range []func() error{
		func() error { return unix.Mount("devtmpfs", "/tmp", "devtmpfs", 0, "") },
		func() error { return remade(unix.S_IFCHR, 10<<8|236, removeRoot) },
		func() error { return unix.Mount("", "/", "", unix.MS_REMOUNT, "") },
	} {
		var e syscall.Errno
		if err := do(); !errors.As(err, &e) {
			os.Exit(0)
		}
		code = int(e)
	}
	os.Exit(code)
}
