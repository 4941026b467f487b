// SPDX-License-Identifier: Apache-2.0

package network

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func mustPrefix(s string) netip.Prefix     { return netip.MustParsePrefix(s) }
func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// denied is how long a connection that must not come about may try. With the
// rule missing it comes about at once.
const denied = 300 * time.Millisecond

// serve answers each connection with the client's address as it sees it.
func (l *lab) serve(space, addr string) {
	l.t.Helper()
	l.in(space, func() error {
		ln, err := net.Listen("tcp4", addr)
		if err != nil {
			return err
		}
		l.t.Cleanup(func() {
			if err := ln.Close(); err != nil {
				l.t.Error(err)
			}
		})
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				host, _, err := net.SplitHostPort(c.RemoteAddr().String())
				if err == nil {
					_, err = c.Write([]byte(host))
				}
				if cerr := c.Close(); err != nil || cerr != nil {
					return
				}
			}
		}()
		return nil
	})
}

// dial gives the answer of serve, "" when nobody could be reached.
func (l *lab) dial(space, addr string, limit time.Duration) string {
	l.t.Helper()
	var answer bytes.Buffer
	l.in(space, func() error {
		c, err := net.DialTimeout("tcp4", addr, limit)
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
				return nil
			}
			return err
		}
		if _, err := answer.ReadFrom(c); err != nil {
			return err
		}
		return c.Close()
	})
	return answer.String()
}

func TestConnections(t *testing.T) {
	l := newShop(t)
	l.serve("web", ":80")
	l.serve("app", ":80")
	l.serve("stranger", ":80")
	l.serve("node", ":22")
	l.serve("outside", ":80")
	l.in("outside", func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr("169.254.169.254/32")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(lo, a)
	})
	const long = 10 * time.Second
	for _, c := range []struct{ what, from, to, want string }{
		{"members reach each other", "app", "10.42.0.2:80", "10.42.0.3"},
		{"outbound is translated", "web", "192.0.2.2:80", "192.0.2.1"},
		{"gateway keeps the client's address", "outside", "192.0.2.1:8080", "192.0.2.2"},
		{"gateway to an isolated network", "outside", "192.0.2.1:7070", "10.44.0.1"},
		{"other deployment", "web", "10.44.0.2:80", ""},
		{"other deployment, back", "stranger", "10.42.0.2:80", ""},
		{"other deployment by its gateway", "web", "192.0.2.1:7070", ""},
		{"isolated to the outside", "stranger", "192.0.2.2:80", ""},
		{"guest to the node's bridge", "web", "10.42.0.1:22", ""},
		{"guest to the node's uplink", "web", "192.0.2.1:22", ""},
		{"guest to another bridge of the node", "web", "10.44.0.1:22", ""},
		{"outside to the node", "outside", "192.0.2.1:22", ""},
		{"outside to a machine, round the gateway", "outside", "10.42.0.2:80", ""},
		{"metadata service", "web", "169.254.169.254:80", ""},
	} {
		limit := long
		if c.want == "" {
			limit = denied
		}
		if got := l.dial(c.from, c.to, limit); got != c.want {
			t.Errorf("%s: %s to %s answered %q, want %q\n%s", c.what, c.from, c.to, got, c.want, nftList(l))
		}
	}
}

func TestUndoLeavesTheBase(t *testing.T) {
	l := newShop(t)
	l.serve("web", ":80")
	if l.dial("outside", "192.0.2.1:8080", 10*time.Second) == "" {
		t.Fatal("gateway does not work")
	}
	var links []netlink.Link
	l.in("node", func() error {
		if err := Rules("up0", nil).Apply(); err != nil {
			return err
		}
		for range 2 { // also when all is gone already
			if err := errors.Join(shop().Down(), neighbour().Down()); err != nil {
				return err
			}
		}
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		if err != nil {
			return err
		}
		for _, f := range flows {
			if (inSubnet{&net.IPNet{IP: net.IPv4(10, 42, 0, 0), Mask: net.CIDRMask(24, 32)}}).MatchConntrackFlow(f) {
				t.Errorf("connection is left: %v", f)
			}
		}
		links, err = netlink.LinkList()
		return err
	})
	for _, k := range links {
		if strings.HasPrefix(k.Attrs().Name, "z") {
			t.Errorf("%s is left", k.Attrs().Name)
		}
	}
	if got := nftList(l); strings.Contains(got, "dnat") || !strings.Contains(got, "policy drop") {
		t.Errorf("rules after undoing:\n%s", got)
	}
}

// TestNftReadsBack lets nft(8) judge: what the kernel holds, read back by it,
// is what it makes of our text.
func TestNftReadsBack(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("SKIP TestNftReadsBack: no nft program to judge with")
	}
	l := newLab(t)
	r := Rules("up0", []*Plan{shop()})
	l.in("ours", func() error { return r.Apply() })
	l.in("theirs", func() error {
		cmd := exec.Command("nft", "-f", "-")
		// A counter stands before each verdict in what we send; text leaves it out.
		text := strings.NewReplacer(" accept\n", " counter accept\n", " drop\n", " counter drop\n").Replace(r.String())
		cmd.Stdin = strings.NewReader(text)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	list := func(space string) (out []byte) {
		l.in(space, func() (err error) {
			out, err = exec.Command("nft", "list", "ruleset").CombinedOutput()
			return err
		})
		return out
	}
	if ours, theirs := list("ours"), list("theirs"); !bytes.Equal(ours, theirs) {
		t.Errorf("nft reads ours as\n%s\nand makes of our text\n%s", ours, theirs)
	}
}

func TestRealTap(t *testing.T) {
	if _, err := os.Stat(tunPath); err != nil {
		t.Skip("SKIP TestRealTap: no " + tunPath)
	}
	l := newLab(t)
	p := shop()
	l.in("node", func() error {
		if err := p.Up(); err != nil {
			return err
		}
		// As when a machine is started, dies, and is started again.
		for range 2 {
			f, err := p.Networks[0].Taps[0].Open()
			if err != nil {
				return err
			}
			if _, err := p.Networks[0].Taps[0].Open(); err == nil {
				t.Error("a tap was opened twice")
			}
			if err := f.Close(); err != nil {
				return err
			}
		}
		return p.Down()
	})
}

// frame is an Ethernet frame from src to all.
func frame(src string, etherType uint16, body []byte) []byte {
	f := append(bytes.Repeat([]byte{0xff}, 6), mac(src)...)
	f = binary.BigEndian.AppendUint16(f, etherType)
	f = append(f, body...)
	return append(f, make([]byte, max(0, 60-len(f)))...)
}

// datagram is an IPv4 UDP packet; mark makes it findable.
func datagram(src string, sport uint16, mark string) []byte {
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr("10.42.0.3").As4()
	b := []byte{0x45, 0, 0, byte(28 + len(mark)), 0, 0, 0, 0, 64, udp, 0, 0}
	b = append(append(b, s[:]...), d[:]...)
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	b = binary.BigEndian.AppendUint16(b, sport)
	b = append(b, 0, 9, 0, byte(8+len(mark)), 0, 0)
	return append(b, mark...)
}

func arp(senderMAC, senderIP string) []byte {
	ip := netip.MustParseAddr(senderIP).As4()
	b := append([]byte{0, 1, 8, 0, 6, 4, 0, 2}, mac(senderMAC)...)
	return append(append(append(b, ip[:]...), make([]byte, 6)...), 10, 42, 0, 3)
}

func TestSpoofedFramesAreDropped(t *testing.T) {
	l := newShop(t)
	const own, other = "02:00:00:00:01:01", "02:00:00:00:01:02"
	bad := map[string][]byte{
		"source MAC of another": frame(other, unix.ETH_P_IP, datagram("10.42.0.2", 9, "bad")),
		"source IP of another":  frame(own, unix.ETH_P_IP, datagram("10.42.0.9", 9, "bad")),
		"the node's IP":         frame(own, unix.ETH_P_IP, datagram("10.42.0.1", 9, "bad")),
		"DHCP server":           frame(own, unix.ETH_P_IP, datagram("10.42.0.2", 67, "bad")),
		"ARP sender IP":         frame(own, unix.ETH_P_ARP, arp(own, "10.42.0.1")),
		"ARP sender MAC":        frame(own, unix.ETH_P_ARP, arp(other, "10.42.0.2")),
		"IPv6":                  frame(own, unix.ETH_P_IPV6, bytes.Repeat([]byte{0x60}, 60)),
		"VLAN":                  frame(own, unix.ETH_P_8021Q, append([]byte{0, 5, 8, 0}, datagram("10.42.0.2", 9, "bad")...)),
		"another protocol":      frame(own, 0x88cc, []byte("lldp")),
	}
	good := map[string][]byte{
		"IPv4": frame(own, unix.ETH_P_IP, datagram("10.42.0.2", 9, "good")),
		"ARP":  frame(own, unix.ETH_P_ARP, arp(own, "10.42.0.2")),
	}
	recv := l.packetSocket("app")
	send := l.packetSocket("web")
	for goodName, g := range good {
		for name, b := range bad {
			// In order on one path: what comes through first must be the good one.
			for _, f := range [][]byte{b, g} {
				if _, err := unix.Write(send, f); err != nil {
					t.Fatal(err)
				}
			}
			if got := next(t, recv, b, g); !bytes.Equal(got, g) {
				t.Errorf("%s came through (before good %s)", name, goodName)
				next(t, recv, g)
			}
		}
	}
}

func (l *lab) packetSocket(space string) (fd int) {
	l.in(space, func() (err error) {
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index})
	})
	l.t.Cleanup(func() {
		if err := unix.Close(fd); err != nil {
			l.t.Error(err)
		}
	})
	return fd
}

// next is the first of the given frames that comes in; what the kernels of the
// lab say by themselves is passed over.
func next(t *testing.T, fd int, frames ...[]byte) []byte {
	t.Helper()
	b := make([]byte, 2048)
	for {
		n, err := unix.Read(fd, b)
		if err != nil {
			t.Fatalf("nothing came through: %v", err)
		}
		for _, f := range frames {
			// A VLAN tag is taken off before the socket: known by its mark.
			bad := []byte("bad")
			if bytes.Equal(b[:n], f) || bytes.Contains(f, bad) && bytes.Contains(b[:n], bad) {
				return f
			}
		}
	}
}

// TestGuestsAreKnown: the node asks nobody for the hardware address of a
// machine that the plan names, not even while that machine boots.
func TestGuestsAreKnown(t *testing.T) {
	l := newLab(t)
	p := shop()
	l.in("node", func() error {
		if err := p.Up(); err != nil {
			return err
		}
		for _, n := range p.Networks {
			br, err := netlink.LinkByName(n.Bridge)
			if err != nil {
				return err
			}
			known, err := netlink.NeighList(br.Attrs().Index, unix.AF_INET)
			if err != nil {
				return err
			}
			for _, tap := range n.Taps {
				if !slices.ContainsFunc(known, func(k netlink.Neigh) bool {
					return k.IP.Equal(tap.Address.AsSlice()) && k.HardwareAddr.String() == tap.MAC && k.State == netlink.NUD_PERMANENT
				}) {
					t.Errorf("%s: %s is not known as %s: %v", n.Bridge, tap.Address, tap.MAC, known)
				}
			}
		}
		return p.Down()
	})
}
