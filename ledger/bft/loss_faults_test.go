// SPDX-License-Identifier: Apache-2.0

//go:build faults

package bft

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mirror is a network on which packets get lost, late and out of order: a TUN
// device that gives each packet back with its two addresses swapped. Whoever
// listens on 10.77.0.1 is reached at 10.78.0.1. Sums stay right: both addresses
// are in them, in whichever order.
type mirror struct {
	tun                   *os.File
	bad                   atomic.Bool
	sent, lost, overtaken atomic.Int64
	last                  atomic.Int64 // number of the packet that was given back last
}

const (
	lossPercent = 30
	lossDelay   = 200 * time.Millisecond
)

var lossName = fmt.Sprintf("%d %% loss each way, %s, reordering, 2 min", lossPercent, lossDelay)

func newMirror() (*mirror, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq("bad")
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return nil, fmt.Errorf("make a TUN device: %w", err)
	}
	for _, args := range []string{"link set lo up", "address add 10.77.0.1/24 dev bad", "link set bad up", "route add 10.78.0.0/24 dev bad"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	return &mirror{tun: os.NewFile(uintptr(fd), "tun")}, nil
}

func (m *mirror) run() {
	for b := make([]byte, 65536); ; {
		n, err := m.tun.Read(b)
		if err != nil {
			return
		}
		if n < 20 || b[0]>>4 != 4 {
			continue
		}
		p := bytes.Clone(b[:n])
		copy(p[12:16], b[16:20])
		copy(p[16:20], b[12:16])
		number := m.sent.Add(1)
		back := func() {
			if m.last.Swap(number) > number {
				m.overtaken.Add(1)
			}
			_, _ = m.tun.Write(p) // a packet that is lost is what this is about
		}
		switch {
		case !m.bad.Load():
			back()
		case rand.IntN(100) < lossPercent:
			m.lost.Add(1)
		default: // up to 20 ms more, so that they overtake each other
			time.AfterFunc(lossDelay+time.Duration(rand.Int64N(int64(20*time.Millisecond))), back)
		}
	}
}

// TestFaultsOfLoss has four validators on a network of their own that loses
// 30 % of the packets, each way, takes 200 ms, and changes their order. It runs
// itself again in namespaces of users and networks.
func TestFaultsOfLoss(t *testing.T) {
	if os.Getenv("ZOS_TEST_LOSS") != "" {
		loss(t)
		return
	}
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestFaultsOfLoss$", "-test.v", "-test.timeout=25m")
	cmd.Env = append(os.Environ(), "ZOS_TEST_LOSS=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	err = cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		t.Fatalf("in its namespace: %v", err)
	} else if err != nil {
		skipRow(t, table(t), lossName)
		t.Skipf("SKIP no network of its own: a namespace of users and networks is refused: %v", err)
	}
}

func loss(t *testing.T) {
	row := table(t)
	skipRow(t, row, lossName)
	m, err := newMirror()
	if err != nil {
		t.Skipf("SKIP the network cannot be made: %v", err)
	}
	go m.run()
	c := newClusterOver(t, 4, 4, "10.77.0.1", "10.78.0.1")
	for i := range 4 {
		c.put(i, c.entry())
	}
	m.sent.Store(0)
	m.bad.Store(true)
	stop := c.load(2)
	time.Sleep(2 * time.Minute)
	n := stop()
	m.bad.Store(false)
	begin := time.Now()
	slowest := time.Duration(0)
	for i := range 4 {
		slowest = max(slowest, c.put(i, c.entry()))
	}
	healed := time.Since(begin)
	size := c.same()
	sent, lost, overtaken := m.sent.Load(), m.lost.Load(), m.overtaken.Load()
	if lost < 50 || overtaken < 20 {
		t.Errorf("of %d packets %d were lost, %d overtaken", sent, lost, overtaken)
	}
	row(lossName,
		fmt.Sprintf("%d of %d packets lost, %d overtaken", lost, sent, overtaken),
		fmt.Sprintf("%d receipts meanwhile; one of each of the four %s after it is over; %d receipts hold in a log of %d", n, healed.Round(time.Millisecond), len(c.got.entries), size))
}
