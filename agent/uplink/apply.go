// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/uplink/dhcp4"
)

// apply makes the link's IPv4 address and the default route exactly what the
// lease says, and leaves alone what is right already.
func apply(link netlink.Link, l dhcp4.Lease) error {
	name := link.Attrs().Name
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", name, err)
	}
	want := ipnet(l.Address)
	for _, a := range addrs {
		if a.IPNet.String() != want.String() {
			if err := netlink.AddrDel(link, &a); err != nil {
				return fmt.Errorf("remove %s from %s: %w", a.IPNet, name, err)
			}
		}
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: want}); err != nil {
		return fmt.Errorf("address %s on %s: %w", want, name, err)
	}
	if l.Router.IsValid() {
		// On-link, so that a router outside of a /32 address works as well.
		err = netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: l.Router.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
			Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}})
		if err != nil {
			return fmt.Errorf("default route by %s on %s: %w", l.Router, name, err)
		}
	}
	return dropRoutes(link, l.Router)
}

// dropRoutes removes the link's default routes, except the one by keep: that of
// an earlier lease, whose router the server does not name any more, would lead
// nowhere or to a stranger.
func dropRoutes(link netlink.Link, keep netip.Addr) error {
	routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("routes of %s: %w", link.Attrs().Name, err)
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if gw, ok := netip.AddrFromSlice(r.Gw.To4()); ok && gw == keep {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove default route by %s on %s: %w", r.Gw, link.Attrs().Name, err)
		}
	}
	return nil
}

// clearLink takes all IPv4 addresses off the link; the routes go with them.
func clearLink(link netlink.Link) error {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", link.Attrs().Name, err)
	}
	var errs []error
	for _, a := range addrs {
		if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("remove %s: %w", a.IPNet, err))
		}
	}
	return errors.Join(errs...)
}

func ipnet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
