// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// asConfined has this program try what a confined process may.
const asConfined = "-try-to-connect"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == asConfined {
		os.Exit(tryToConnect(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

// tryToConnect says by its status what went otherwise than it should.
func tryToConnect(allowed, other string) int {
	status := 0
	if c, err := net.Dial("tcp", allowed); err != nil {
		status |= 1
	} else {
		c.Close() // nothing was sent
	}
	if _, err := net.Dial("tcp", other); !errors.Is(err, unix.EACCES) {
		status |= 2
	}
	if os.Getuid() != 64100 || os.Getgid() != 64100 {
		status |= 4
	}
	if _, err := os.ReadDir("/etc"); !errors.Is(err, unix.EACCES) {
		status |= 8
	}
	return status
}

// TestConnect: a confined process with ports reaches those and no other, with
// the uid that it was given.
func TestConnect(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP TestConnect: needs root")
	}
	if abi, _, err := onlyABI(); err != nil || abi < netABI {
		t.Skipf("SKIP TestConnect: landlock ABI %d, %v", abi, err)
	}
	var addrs [2]string
	var port uint16
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addrs[i] = l.Addr().String()
		if i == 0 {
			_, text, _ := net.SplitHostPort(addrs[0])
			n, err := strconv.ParseUint(text, 10, 16)
			if err != nil {
				t.Fatal(err)
			}
			port = uint16(n)
		}
	}
	rules := []Rule{{Path: "/proc/self/exe", Exec: true}}
	for _, dir := range []string{"/lib", "/lib64", "/usr/lib"} { // a test program may be linked to them
		rules = append(rules, Rule{Path: dir, Exec: true, Optional: true})
	}
	_, pid, err := confined(rules, []uint16{port}, func() (int, error) {
		return syscall.ForkExec("/proc/self/exe", []string{"test", asConfined, addrs[0], addrs[1]},
			&syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 64100, Gid: 64100}}})
	})
	if err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	for {
		if _, err = syscall.Wait4(pid, &status, 0, nil); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil || !status.Exited() || status.ExitStatus() != 0 {
		t.Error(fmt.Sprintf("status %b (1 could not connect, 2 could connect elsewhere, 4 another uid, 8 read a folder)", status.ExitStatus()), err)
	}
}

func onlyABI() (abi, fd int, err error) {
	fd, abi, err = makeRuleset()
	if err == nil {
		err = unix.Close(fd)
	}
	return abi, fd, err
}
