// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/agent/uplink/dhcp4"
)

// TestNothingOfTheOldLeaseStays gives one link lease after lease, and looks
// each time at all that the kernel and resolv.conf have.
func TestNothingOfTheOldLeaseStays(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP TestNothingOfTheOldLeaseStays: needs root for network namespaces")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread goes with its namespace
		done <- leases(t, filepath.Join(t.TempDir(), "resolv.conf"))
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func leases(t *testing.T, resolv string) error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	}()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "x"}); err != nil {
		return err
	}
	peer, err := netlink.LinkByName("x")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(peer); err != nil { // carrier
		return err
	}
	link, err := netlink.LinkByName("up0")
	if err != nil {
		return err
	}
	var told Up
	u := &Uplink{Config: seed.Network{Mode: "dhcp"}, Resolv: resolv, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler),
		Changed: func(up Up) { told = up }, Moved: func() {}}
	a, b := netip.MustParsePrefix("10.0.2.15/24"), netip.MustParsePrefix("10.0.2.16/24")
	one, two := netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("10.0.2.3")
	for i, c := range []struct {
		lease *dhcp4.Lease
		want  string
	}{
		{&dhcp4.Lease{Address: a, Router: one, DNS: []netip.Addr{one, two}}, "10.0.2.15/24 | 10.0.2.2 | nameserver 10.0.2.2,nameserver 10.0.2.3"},
		{&dhcp4.Lease{Address: a, Router: two, DNS: []netip.Addr{two}}, "10.0.2.15/24 | 10.0.2.3 | nameserver 10.0.2.3"},
		{&dhcp4.Lease{Address: a}, "10.0.2.15/24 |  | "},
		{&dhcp4.Lease{Address: b, Router: one, DNS: []netip.Addr{one}}, "10.0.2.16/24 | 10.0.2.2 | nameserver 10.0.2.2"},
		{&dhcp4.Lease{Address: a, Router: one, DNS: []netip.Addr{one}}, "10.0.2.15/24 | 10.0.2.2 | nameserver 10.0.2.2"},
		{nil, " |  | "},
	} {
		if c.lease == nil {
			err = u.lost(link)
		} else {
			err = u.apply(link, *c.lease)
		}
		if err != nil {
			return fmt.Errorf("lease %d: %w", i, err)
		}
		got, err := stands(link, resolv)
		if err != nil {
			return err
		}
		if got != c.want {
			t.Errorf("lease %d: %q, want %q", i, got, c.want)
		}
		var addresses []netip.Prefix
		if c.lease != nil {
			addresses = []netip.Prefix{c.lease.Address}
		}
		if told.Link != "up0" || !slices.Equal(told.Addresses, addresses) {
			t.Errorf("lease %d: told %+v", i, told)
		}
	}
	return nil
}

// stands is "addresses | default routers | resolv.conf".
func stands(link netlink.Link, resolv string) (string, error) {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return "", err
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return "", err
	}
	names, err := os.ReadFile(resolv)
	if err != nil {
		return "", err
	}
	var a, r []string
	for _, x := range addrs {
		a = append(a, x.IPNet.String())
	}
	for _, x := range routes {
		if x.Gw != nil {
			r = append(r, x.Gw.String())
		}
	}
	return strings.Join(a, ",") + " | " + strings.Join(r, ",") + " | " + strings.Join(strings.Split(strings.TrimSpace(string(names)), "\n"), ","), nil
}
