// SPDX-License-Identifier: Apache-2.0

// Package nstest gives a test two places in one machine: the node, which is
// the test's whole process in a network namespace of its own, and the outside,
// other namespaces with real servers behind the node's cables.
//
// A Go program's goroutines move between threads, and a thread has its
// namespace; so the test starts itself again as a process that lives in a new
// namespace with all its threads. Nothing leaves the machine.
package nstest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const (
	inside = "ZOS_TEST_NAMESPACE"
	limit  = 3 * time.Minute
)

// Enter returns true in the process that is the node. In the process that
// called it first, it runs that one, takes over its result, and returns false.
func Enter(t *testing.T, tools ...string) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		ip(t, "link", "set", "lo", "up")
		return true
	}
	need(t, tools)
	t.Parallel() // each is a process of its own, and mostly waits
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	// A mount namespace of its own, so that /sys can show the namespace's links.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig follows the thread
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	case testing.Verbose():
		t.Logf("%s", out)
	}
	return false
}

// need skips a test that may not make namespaces, or lacks a program.
func need(t *testing.T, tools []string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("SKIP %s: needs root for network namespaces", t.Name())
	}
	for _, tool := range append([]string{"ip"}, tools...) {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIP %s: no %s", t.Name(), tool)
		}
	}
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if err := run("ip", args...); err != nil {
		t.Fatal(err)
	}
}

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// IP runs the ip command in the node's namespace.
func IP(t *testing.T, args ...string) { t.Helper(); ip(t, args...) }

// Net is a namespace outside of the node.
type Net struct {
	t    *testing.T
	ns   netns.NsHandle
	jobs chan func()
}

// Outside makes a namespace, for which the tools are needed; it goes with the test.
func Outside(t *testing.T, tools ...string) *Net {
	t.Helper()
	need(t, tools)
	n := &Net{t: t, jobs: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with its namespace
		var err error
		n.ns, err = netns.New()
		ready <- err
		for job := range n.jobs {
			job()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(n.jobs)
		if err := n.ns.Close(); err != nil {
			t.Error(err)
		}
	})
	n.IP("link", "set", "lo", "up")
	return n
}

// Do runs f on the thread of the namespace. Sockets and processes that f makes
// stay there; goroutines that it starts do not.
func (n *Net) Do(f func() error) {
	n.t.Helper()
	done := make(chan error)
	n.jobs <- func() { done <- f() }
	if err := <-done; err != nil {
		n.t.Fatal(err)
	}
}

// IP runs the ip command in the namespace.
func (n *Net) IP(args ...string) {
	n.t.Helper()
	n.Do(func() error { return run("ip", args...) })
}

// Cable joins a link of the node, near, and one of n, far, which is up. The
// node's link gets the hardware address mac.
func (n *Net) Cable(near, mac, far string) {
	n.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = near
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: far, PeerNamespace: netlink.NsFd(n.ns)}); err != nil {
		n.t.Fatal(err)
	}
	ip(n.t, "link", "set", near, "address", mac)
	n.IP("link", "set", far, "up")
}

// Sysctl sets a kernel parameter below net, such as ipv6/conf/all/forwarding.
func (n *Net) Sysctl(name, value string) {
	n.t.Helper()
	n.Do(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) })
}

// Start starts a program in the namespace and ends it with the test, or
// earlier by the function that is returned.
func (n *Net) Start(name string, args ...string) (stop func()) {
	n.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StderrPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	n.Do(cmd.Start)
	said := make(chan string, 1)
	go func() {
		b, err := io.ReadAll(out)
		said <- fmt.Sprint(string(b), err)
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		killed := cmd.Process.Kill()
		text := <-said
		err := cmd.Wait()
		if killed != nil {
			n.t.Errorf("%s had ended by itself: %v: %s", name, err, text)
		}
	}
	n.t.Cleanup(stop)
	return stop
}

// Eventually polls until ok holds, for as long as a loaded machine may need.
func Eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
