// SPDX-License-Identifier: Apache-2.0

// Command workload is the process that the driver tests run in their guests.
// It tells what it finds itself in, and misbehaves on demand.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/wire"
)

// View is what the workload sees; the test decodes it from the first line.
type View struct {
	Args, Env  []string
	Cwd        string
	UID, GID   int
	Groups     []int
	PID, SID   int
	Status     map[string]string // some lines of /proc/self/status
	Hostname   string
	Hosts      string
	Files      map[string]string // path to "mode uid:gid content"
	Writable   map[string]string // path to "" or the error of making a file there
	Devices    []string
	Processes  []string // visible numbers in /proc
	Runs       int      // how often the volume was seen before
	Now        int64    // Unix ms
	OpenStdout string   // error of opening /dev/stdout by name
	Exec       string   // error of running a program from the tmpfs
	Agent      string   // error of dialing the agent as PID 1 does
	VsockPair  string   // error of two sockets that are connected already
	Ring       string   // error of making sockets without calls
}

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("no task"))
	}
	switch os.Args[1] {
	case "serve":
		serve()
	case "check":
		_, err := os.Stat("/tmp/ready")
		fail(err)
	case "reboot":
		fmt.Println("rebooting")
		fail(unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
	case "oom":
		var keep [][]byte
		for {
			b := make([]byte, 4<<20)
			for i := range b {
				b[i] = byte(i)
			}
			keep = append(keep, b)
			fmt.Println(len(keep))
		}
	case "read":
		b, err := os.ReadFile(os.Args[2])
		fmt.Println("read", len(b), err)
		time.Sleep(time.Hour) // a kernel that did not panic leaves the test waiting
	case "attack":
		attack(os.Args[2])
	case "again":
		again(os.Args[2])
	case "inside":
		inside()
	default:
		fail(fmt.Errorf("unknown task %q", os.Args[1]))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

// serve answers on port 8080 until it is asked to end.
func serve() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGUSR2)
	v := view()
	b, err := json.Marshal(v)
	fail(err)
	fmt.Println(string(b))
	fmt.Fprintln(os.Stderr, "to stderr")
	l, err := net.Listen("tcp", ":8080")
	fail(err)
	if err := os.WriteFile("/tmp/ready", nil, 0o600); err != nil {
		fail(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			fail(err)
			go answer(c)
		}
	}()
	// An orphan for PID 1, and one that is left behind at the end.
	_, err = syscall.ForkExec("/app", []string{"/app", "read", "/app"}, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	fail(err)
	<-stop
	fmt.Println("bye")
	os.Exit(7)
}

// answer speaks as much HTTP as the health check and the test do.
func answer(c net.Conn) {
	buf := make([]byte, 4096)
	_, err := c.Read(buf)
	if err == nil {
		_, err = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"))
	}
	if err = errors.Join(err, c.Close()); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
	}
}

func view() View {
	v := View{Args: os.Args, Env: os.Environ(), UID: os.Getuid(), GID: os.Getgid(), PID: os.Getpid(), Status: map[string]string{},
		Files: map[string]string{}, Writable: map[string]string{}, Now: time.Now().UnixMilli()}
	var err error
	v.Cwd, err = os.Getwd()
	fail(err)
	v.Groups, err = os.Getgroups()
	fail(err)
	v.SID, err = unix.Getsid(0)
	fail(err)
	v.Hostname, err = os.Hostname()
	fail(err)
	status, err := os.ReadFile("/proc/self/status")
	fail(err)
	for line := range strings.Lines(string(status)) {
		k, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if strings.HasPrefix(k, "Cap") || k == "NoNewPrivs" {
			v.Status[k] = strings.TrimSpace(value)
		}
	}
	hosts, err := os.ReadFile("/etc/hosts")
	fail(err)
	v.Hosts = string(hosts)
	for _, name := range []string{"/etc/app/app.conf", "/etc/hostname", "/from-image"} {
		v.Files[name] = describe(name)
	}
	for _, dir := range []string{"/", "/etc", "/dev", "/tmp", "/data", "/proc/sys/kernel", "/sys"} {
		v.Writable[dir] = try(os.WriteFile(dir+"/written", nil, 0o600))
	}
	v.Writable["/proc/sysrq-trigger"] = try(os.WriteFile("/proc/sysrq-trigger", []byte("h"), 0))
	v.Devices = list("/dev/*")
	v.Processes = list("/proc/[0-9]*")
	v.Runs = count()
	f, err := os.OpenFile("/dev/stdout", os.O_WRONLY, 0)
	if v.OpenStdout = try(err); err == nil {
		fail(f.Close())
	}
	program, err := os.ReadFile("/app")
	fail(err)
	fail(os.WriteFile("/tmp/app", program, 0o700))
	_, err = syscall.ForkExec("/tmp/app", []string{"/tmp/app", "check"}, &syscall.ProcAttr{})
	v.Exec = try(err)
	v.Agent = try(dialAgent())
	_, err = unix.Socketpair(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	v.VsockPair = try(err)
	var params [120]byte // struct io_uring_params
	_, _, ring := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if ring != 0 {
		v.Ring = try(ring)
	}
	return v
}

// dialAgent is what no workload may: its answers would be taken for its guest's.
func dialAgent() error {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: wire.Port}), unix.Close(fd))
}

func try(err error) string {
	if err == nil {
		return ""
	}
	var e syscall.Errno
	if errors.As(err, &e) {
		return unix.ErrnoName(e)
	}
	return err.Error()
}

func list(pattern string) []string {
	names, err := filepath.Glob(pattern)
	fail(err)
	for i := range names {
		names[i] = filepath.Base(names[i])
	}
	return names
}

func describe(name string) string {
	info, err := os.Stat(name)
	if err != nil {
		return err.Error()
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "no owner"
	}
	return fmt.Sprintf("%s %d:%d %s", info.Mode(), st.Uid, st.Gid, b)
}

// count keeps a number in the volume.
func count() int {
	const name = "/data/runs"
	n := 0
	if b, err := os.ReadFile(name); err == nil {
		if n, err = strconv.Atoi(string(b)); err != nil {
			fail(err)
		}
	}
	if err := os.WriteFile(name, []byte(strconv.Itoa(n+1)), 0o600); err != nil {
		return -1
	}
	return n
}
