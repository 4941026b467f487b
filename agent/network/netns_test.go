// SPDX-License-Identifier: Apache-2.0

package network

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// lab is a node in a network namespace of its own, with guests and an outside
// in others. A veth stands in for each tap: packets meet the same hooks.
type lab struct {
	t      *testing.T
	spaces map[string]netns.NsHandle
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIP " + t.Name() + ": needs root for network namespaces")
	}
	l := &lab{t: t, spaces: map[string]netns.NsHandle{}}
	t.Cleanup(func() {
		for _, h := range l.spaces {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return l
}

// in runs f in a namespace, made when it is first named. The thread is thrown
// away afterwards, so that no namespace leaks into other tests.
func (l *lab) in(space string, f func() error) {
	l.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			h, ok := l.spaces[space]
			if !ok {
				h, err := netns.New()
				if err != nil {
					return fmt.Errorf("new namespace: %w", err)
				}
				l.spaces[space] = h
				lo, err := netlink.LinkByName("lo")
				if err != nil {
					return err
				}
				if err := netlink.LinkSetUp(lo); err != nil {
					return err
				}
			} else if err := netns.Set(h); err != nil {
				return err
			}
			return f()
		}()
	}()
	if err := <-done; err != nil {
		l.t.Fatalf("in %s: %v", space, err)
	}
}

// cable joins a link of the node to a new namespace whose end has a MAC, an
// address and a default route.
func (l *lab) cable(nodeLink, space, mac, addr, gateway string) {
	l.t.Helper()
	l.in(space, func() error { return nil })
	l.in("node", func() error {
		hw, err := net.ParseMAC(mac)
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = nodeLink
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerHardwareAddr: hw, PeerNamespace: netlink.NsFd(l.spaces[space])})
	})
	l.in(space, func() error {
		if err := sysctl("net/ipv6/conf/eth0/disable_ipv6", "1"); err != nil {
			return err
		}
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, a); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gateway)})
	})
}

// newShop is the node with the shop's plan and another deployment beside it,
// rules in force, and an outside behind the uplink.
func newShop(t *testing.T) *lab {
	l := newLab(t)
	other := neighbour()
	l.in("node", func() error { return nil })
	for _, p := range []*Plan{shop(), other} {
		for _, n := range p.Networks {
			for _, tap := range n.Taps {
				if n.Name == "back" {
					continue // app has its second interface only in the rules
				}
				l.cable(tap.Name, tap.Machine, tap.MAC, fmt.Sprintf("%s/%d", tap.Address, n.Host.Bits()), n.Host.Addr().String())
			}
		}
	}
	l.cable("up0", "outside", "02:00:00:00:09:09", "192.0.2.2/24", "192.0.2.1")
	l.in("node", func() error {
		up, err := netlink.LinkByName("up0")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr("192.0.2.1/24")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(up, a); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(up); err != nil {
			return err
		}
		if err := Rules("up0", []*Plan{shop(), other}).Apply(); err != nil {
			return err
		}
		front := shop()
		front.Networks = front.Networks[:1]
		for _, p := range []*Plan{front, other} {
			// Twice: the second time is what an adopting agent does.
			for range 2 {
				if err := p.Up(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return l
}

func neighbour() *Plan {
	p := shop()
	n := p.Networks[1]
	n.Bridge, n.Host, n.MAC = "zb7", mustPrefix("10.44.0.1/24"), "02:00:00:00:00:07"
	n.Name = "alone"
	n.Taps = []Tap{{Machine: "stranger", Name: "zt7", MAC: "02:00:00:00:01:07", Address: mustPrefix("10.44.0.2/24").Addr()}}
	return &Plan{Networks: []Network{n}, Gateways: []Gateway{{Name: "back", Protocol: "tcp", Port: 7070, Bridge: "zb7", Masquerade: true,
		Target: mustAddrPort("10.44.0.2:80")}}}
}

func nftList(l *lab) string {
	var out []byte
	l.in("node", func() (err error) {
		if _, err := exec.LookPath("nft"); err != nil {
			l.t.Skip("SKIP " + l.t.Name() + ": no nft program to judge with")
		}
		out, err = exec.Command("nft", "list", "ruleset").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	return string(out)
}
