// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/agent/uplink/lacptest"
	"github.com/zos-node/zos/agent/uplink/nstest"
)

// needs skips a test on a kernel that cannot make a link; TestInNodeKernel of
// the rig has one that can.
func needs(t *testing.T, l netlink.Link) {
	t.Helper()
	err := netlink.LinkAdd(l)
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("SKIP %s: this kernel has no %s", t.Name(), l.Type())
	}
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// aggregate is two cards that lead to a switch with LACP, and a DHCP server
// and a ledger behind it.
func aggregate(t *testing.T) (*nstest.Net, *lacptest.Switch) {
	t.Helper()
	needs(t, netlink.NewLinkBond(attrs("b")))
	n := nstest.Outside(t)
	n.Cable("up0", mac0, "p0")
	n.Cable("up1", mac1, "p1")
	n.IP("link", "add", "sw", "type", "veth", "peer", "name", "r0")
	n.IP("link", "set", "sw", "up")
	n.IP("link", "set", "r0", "up")
	n.IP("address", "add", "10.0.2.1/24", "dev", "r0")
	n.IP("address", "add", "192.0.2.80/32", "dev", "lo")
	for _, name := range []string{"up0", "up1"} {
		if err := lacptest.NoOffload(name); err != nil {
			t.Fatal(err)
		}
	}
	var open []io.ReadWriteCloser
	n.Do(func() error {
		for _, name := range []string{"sw", "p0", "p1"} {
			if err := lacptest.NoOffload(name); err != nil {
				return err
			}
			p, err := lacptest.Packet(name)
			if err != nil {
				return err
			}
			open = append(open, p)
		}
		return lacptest.NoOffload("r0")
	})
	s := lacptest.New(open[0], open[1:]...)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	dnsmasq(t, n, "--dhcp-range=10.0.2.10,10.0.2.10,1h")
	serve(t, n, "192.0.2.80:80")
	return n, s
}

// TestLACP joins two cards to an aggregate with a switch, loses one of them,
// and has it back.
func TestLACP(t *testing.T) {
	if !nstest.Enter(t, "dnsmasq") {
		return
	}
	n, s := aggregate(t)
	c := seed.Automatic()
	c.Links, c.Bond, c.IPv6.Mode = []string{mac0, mac1}, seed.BondLACP, seed.ModeOff
	b := start(t, "http://192.0.2.80", c)
	b.eventually(bondName, true, "10.0.2.10/24")
	nstest.Eventually(t, "both cards in one aggregate", func() bool { return ports(t) == 2 })
	l, err := netlink.LinkByName(bondName)
	if err != nil || l.Attrs().HardwareAddr.String() != mac0 {
		t.Errorf("bond %+v %v", l, err)
	}
	for i, cable := range []string{"p0", "p1"} {
		n.IP("link", "set", cable, "down")
		before := s.Carried()
		nstest.Eventually(t, "frames on the other card", func() bool {
			err := b.u.Reach(t.Context())
			return err == nil && s.Carried()[1-i] > before[1-i]
		})
		n.IP("link", "set", cable, "up")
		nstest.Eventually(t, "both cards again", func() bool { return ports(t) == 2 })
	}
}

// ports is how many cards are in the active aggregate, by the kernel's word.
// (/proc/net is that of the first thread, which may be outside.)
func ports(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/bonding/" + bondName)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "Number of ports: ")
	n, err := strconv.Atoi(strings.SplitN(rest, "\n", 2)[0])
	if err != nil {
		t.Fatalf("%v:\n%s", err, b)
	}
	return n
}

// TestFromBondToPlain: a switch that speaks no LACP carries nothing, so the
// second configuration, without a bond, is used.
func TestFromBondToPlain(t *testing.T) {
	if !nstest.Enter(t, "dnsmasq") {
		return
	}
	needs(t, netlink.NewLinkBond(attrs("b")))
	n := dhcp(t, "up0", mac0, "10.0.2")
	serve(t, n, "192.0.2.80:80")
	bond, plain := seed.Automatic(), seed.Automatic()
	bond.Bond, bond.VLAN = seed.BondActiveBackup, 9 // nobody is on that VLAN
	needs(t, &netlink.Vlan{LinkAttrs: vlanAttrs(t), VlanId: 9})
	b := start(t, "http://192.0.2.80", bond, plain)
	b.eventually("up0", true, "10.0.2.10/24")
	if _, err := netlink.LinkByName(bondName); err == nil {
		t.Error("the bond is still there")
	}
}

func vlanAttrs(t *testing.T) netlink.LinkAttrs {
	t.Helper()
	lo, err := netlink.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	a := attrs("v")
	a.ParentIndex = lo.Attrs().Index
	return a
}

// TestActiveBackup on a VLAN: two cards, one is used; its cable is pulled.
func TestActiveBackupOnVLAN(t *testing.T) {
	if !nstest.Enter(t, "dnsmasq") {
		return
	}
	needs(t, netlink.NewLinkBond(attrs("b")))
	n := nstest.Outside(t)
	n.Cable("up0", mac0, "p0")
	n.Cable("up1", mac1, "p1")
	needs(t, &netlink.Vlan{LinkAttrs: vlanAttrs(t), VlanId: 7})
	n.IP("link", "add", "br0", "type", "bridge")
	n.IP("link", "set", "p0", "master", "br0")
	n.IP("link", "set", "p1", "master", "br0")
	n.IP("link", "set", "br0", "up")
	n.IP("link", "add", "link", "br0", "name", "r0", "type", "vlan", "id", "7")
	n.IP("link", "set", "r0", "up")
	n.IP("address", "add", "10.0.2.1/24", "dev", "r0")
	n.IP("address", "add", "192.0.2.80/32", "dev", "lo")
	dnsmasq(t, n, "--dhcp-range=10.0.2.10,10.0.2.10,1h")
	serve(t, n, "192.0.2.80:80")
	c := seed.Automatic()
	c.Bond, c.VLAN = seed.BondActiveBackup, 7
	b := start(t, "http://192.0.2.80", c)
	var name string
	nstest.Eventually(t, "an uplink on the VLAN", func() bool {
		up := b.up()
		name = up.Link
		return up.Proven && len(up.Addresses) > 0 && up.Addresses[0].String() == "10.0.2.10/24"
	})
	for _, cable := range []string{"p0", "p1"} {
		n.IP("link", "set", cable, "down")
		nstest.Eventually(t, "the ledger by the other card", func() bool { return b.u.Reach(t.Context()) == nil })
		n.IP("link", "set", cable, "up")
		nstest.Eventually(t, "the ledger by both cards", func() bool { return b.u.Reach(t.Context()) == nil })
	}
	if got := addresses(t, name); !slices.Equal(got, []string{"10.0.2.10/24"}) {
		t.Errorf("addresses %v", got)
	}
}
