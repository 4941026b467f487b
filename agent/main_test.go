// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/initlink"
	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// console collects what the agent prints.
type console struct {
	mu  sync.Mutex
	b   bytes.Buffer
	new chan struct{}
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if testing.Verbose() {
		fmt.Fprintf(os.Stderr, "%s", p)
	}
	select {
	case c.new <- struct{}{}:
	default:
	}
	return c.b.Write(p)
}

// wait waits for a text and returns all that was said until then.
func (c *console) wait(t *testing.T, text string) string {
	t.Helper()
	limit := time.After(60 * time.Second)
	for {
		c.mu.Lock()
		all := c.b.String()
		c.mu.Unlock()
		if strings.Contains(all, text) {
			return all
		}
		select {
		case <-c.new:
		case <-limit:
			t.Fatalf("never said %q:\n%s", text, all)
		}
	}
}

// TestProcess runs the real program in namespaces of its own: a static
// address, a real ledger over HTTP, init's line on fd 3.
func TestProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP TestProcess: needs root for namespaces")
	}
	for _, tool := range []string{"unshare", "setpriv", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("SKIP TestProcess: no " + tool)
		}
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "agent")
	build := exec.Command("go", "build", "-trimpath", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	log := ledgertest.New(t)
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	network := seed.Automatic()
	network.IPv4 = seed.IP{Mode: seed.ModeStatic, Address: "192.0.2.1/24"}
	s := seed.Seed{APIVersion: seed.Version, Kind: "Seed", Name: "n1", Ledger: []string{"http://192.0.2.2:8470"}, Mirrors: []string{"http://192.0.2.2:8480"},
		Voucher: log.Voucher("v", 1, map[string]string{}), VoucherKey: string(log.VoucherKey), Networks: []seed.Network{network}, Recovery: []string{}}
	text, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	write("seed.json", text)
	write("root.json", log.RootEnv)
	vmm := []byte("#!/bin/sh\necho QEMU emulator version 10.0.0\n")
	write("vmm", vmm)
	write("hypervisor.json", []byte(fmt.Sprintf(`{"name":"qemu","version":"","digest":%q,"source":"debian","path":%q}`, ledgertest.Digest(string(vmm)), dir+"/vmm")))
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil { // so that it can have a deadline
		t.Fatal(err)
	}
	host, agentEnd := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "agent")
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	out := &console{new: make(chan struct{}, 1)}
	// Without CAP_SYS_TIME: the machine's clock has no namespace.
	cmd := exec.Command("unshare", "-m", "sh", "-ec", `
		mount -t tmpfs t /run; mount -t tmpfs t /etc; mkdir /etc/zos
		cp "$0"/seed.json "$0"/root.json "$0"/hypervisor.json /etc/zos/
		echo 'PRETTY_NAME="zos test"' > /etc/os-release
		touch /run/drivers-ready
		mkdir /run/lastwords
		echo '{"kind":"node-panic","detail":"Kernel panic - not syncing: x","files":["/run/pstore"]}' > /run/lastwords/pstore-0.json
		exec setpriv --bounding-set -sys_time --inh-caps -sys_time "$0"/agent`, dir)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, out, []*os.File{agentEnd}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with its namespace
		started <- inNamespaces(t, log.Handler(), cmd)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err == nil {
			<-ended
		}
	})
	if err := agentEnd.Close(); err != nil {
		t.Fatal(err)
	}
	// What the consoles would show; the words before it pass by.
	shown := func(want ...string) {
		t.Helper()
		b := make([]byte, 16<<10)
		if err := host.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for last := ""; ; {
			n, err := host.Read(b)
			if err != nil {
				t.Fatalf("the consoles never show %q, but %s: %v", want, last, err)
			}
			if s, ok := strings.CutPrefix(string(b[:n]), initlink.Status); ok {
				last = s
				if !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(s, w) }) {
					return
				}
			}
		}
	}
	word := func(want string) {
		t.Helper()
		b := make([]byte, 16<<10)
		if err := host.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := host.Read(b)
			if err != nil {
				t.Fatalf("agent does not say %s: %v", want, err)
			}
			if got := string(b[:n]); got == want {
				return
			} else if got != initlink.Alive && got != initlink.Following && !strings.HasPrefix(got, initlink.Status) {
				t.Fatalf("agent says %q, want %s", got, want)
			}
		}
	}
	word(initlink.Alive)
	// It is started before the first drivers are loaded, and looks at nothing
	// until they are.
	if all := out.wait(t, `msg="waiting for the first drivers"`); strings.Contains(all, "msg=seed") {
		t.Errorf("it did not wait for the first drivers:\n%s", all)
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root%s", cmd.Process.Pid, bootReady), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	out.wait(t, `msg="following the ledger"`)
	out.wait(t, "msg=enrolled")
	if nodes := log.State().Nodes(); len(nodes) != 1 || nodes[0].Name != "n1" || nodes[0].Image != "zos test" {
		t.Errorf("nodes %+v", nodes)
	}
	shown(`"name":"n1"`, `"id":"SHA256:`, `"link":"eth0"`, `"addresses":["192.0.2.1/24"`, `"entries":`)
	// What an earlier boot left: onto the ledger with it, and only then away.
	out.wait(t, `msg="the ledger knows what happened to this node"`)
	if all := log.State().Incidents(); len(all) != 1 || all[0].Incident.Kind != "node-panic" || all[0].Incident.Detail != "Kernel panic - not syncing: x" {
		t.Errorf("incidents %+v", all)
	}
	t.Logf("resident memory %d KiB", resident(t, cmd.Process.Pid))
	if _, err := host.Write([]byte(initlink.Shutdown)); err != nil {
		t.Fatal(err)
	}
	word(initlink.PowerOff)
}

// resident reads VmRSS; unshare and sh have become the agent by exec.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

// inNamespaces starts cmd in a network namespace whose cable leads to another
// one, where the ledger is served.
func inNamespaces(t *testing.T, ledger http.Handler, cmd *exec.Cmd) error {
	outside, err := netns.New()
	if err != nil {
		return err
	}
	defer func() {
		if err := outside.Close(); err != nil {
			t.Error(err)
		}
	}()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "out0"
	inside, err := netns.New()
	if err != nil {
		return err
	}
	defer func() {
		if err := inside.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := netns.Set(outside); err != nil {
		return err
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(inside)}); err != nil {
		return err
	}
	link, err := netlink.LinkByName("out0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr("192.0.2.2/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	ln, err := net.Listen("tcp4", "192.0.2.2:8470")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: ledger, ReadHeaderTimeout: time.Minute}
	go func() {
		if err := server.Serve(ln); err != http.ErrServerClosed {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := netns.Set(inside); err != nil {
		return err
	}
	return cmd.Start()
}
