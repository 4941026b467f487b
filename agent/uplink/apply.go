// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// apply makes the plan's link have exactly the plan's addresses and default
// routes, and leaves alone what is right already.
func apply(link netlink.Link, p Plan, now time.Time) error {
	name := link.Attrs().Name
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	var keep []netip.Prefix
	for _, a := range p.Addresses {
		keep = append(keep, a.Prefix)
	}
	if err := dropAddresses(link, keep); err != nil {
		return err
	}
	for _, a := range p.Addresses {
		want := &netlink.Addr{IPNet: ipnet(a.Prefix)}
		if !a.Valid.IsZero() {
			// The kernel lets the address go by itself, should the agent not.
			want.ValidLft, want.PreferedLft = seconds(a.Valid, now), seconds(a.Preferred, now)
			if want.ValidLft <= 0 {
				continue
			}
		}
		if err := netlink.AddrReplace(link, want); err != nil {
			return fmt.Errorf("address %s on %s: %w", a.Prefix, name, err)
		}
	}
	if p.MTU > 0 {
		if err := sysctl(name, "mtu", fmt.Sprint(min(p.MTU, link.Attrs().MTU))); err != nil {
			return err
		}
	}
	for _, r := range p.Routers {
		// On-link, so that a router outside of a /32 address works as well.
		err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: r.AsSlice(), Flags: int(netlink.FLAG_ONLINK), Dst: ipnet(everything(r))})
		if err != nil {
			return fmt.Errorf("default route by %s on %s: %w", r, name, err)
		}
	}
	return dropRoutes(link, p.Routers)
}

// seconds that are left, rounded up: an address must not be gone before its
// time. An absent time is forever, which an int of 32 bits cannot say.
func seconds(t, now time.Time) int {
	const most = 1<<31 - 1
	if t.IsZero() {
		return most
	}
	return int(min(max(0, (t.Sub(now)+time.Second-1)/time.Second), most))
}

func everything(r netip.Addr) netip.Prefix {
	if r.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// ours are the addresses of a link that this package has to do with: all but
// IPv6's link-local ones.
func ours(link netlink.Link) ([]netlink.Addr, error) {
	all, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", link.Attrs().Name, err)
	}
	return slices.DeleteFunc(all, func(a netlink.Addr) bool { return a.IP.To4() == nil && a.IP.IsLinkLocalUnicast() }), nil
}

func dropAddresses(link netlink.Link, keep []netip.Prefix) error {
	addrs, err := ours(link)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range addrs {
		if p := prefixOf(a.IPNet); !slices.Contains(keep, p) {
			if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				errs = append(errs, fmt.Errorf("remove %s from %s: %w", p, link.Attrs().Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// dropRoutes removes the link's default routes, except those by keep: that of
// an earlier lease, whose router nobody names any more, would lead nowhere or
// to a stranger.
func dropRoutes(link netlink.Link, keep []netip.Addr) error {
	routes, err := netlink.RouteList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("routes of %s: %w", link.Attrs().Name, err)
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() || r.Gw == nil && r.Dst == nil {
			continue
		}
		if gw, ok := netip.AddrFromSlice(r.Gw); ok && slices.Contains(keep, gw.Unmap()) {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove default route by %s on %s: %w", r.Gw, link.Attrs().Name, err)
		}
	}
	return nil
}

// clearLink takes away all that apply gave.
func clearLink(link netlink.Link) error {
	return errors.Join(dropRoutes(link, nil), dropAddresses(link, nil))
}

// fate is what the kernel made of the plan's addresses.
type fate struct {
	usable     []netip.Prefix
	duplicates []netip.Addr   // somebody else has them
	missing    []netip.Prefix // they are not there any more
}

func fateOf(link netlink.Link, p Plan) (fate, error) {
	var f fate
	addrs, err := ours(link)
	if err != nil {
		return f, err
	}
	for _, want := range p.Addresses {
		i := slices.IndexFunc(addrs, func(a netlink.Addr) bool { return prefixOf(a.IPNet) == want.Prefix })
		switch {
		case i < 0:
			f.missing = append(f.missing, want.Prefix)
		case addrs[i].Flags&unix.IFA_F_DADFAILED != 0:
			f.duplicates = append(f.duplicates, want.Prefix.Addr())
		case addrs[i].Flags&unix.IFA_F_TENTATIVE == 0:
			f.usable = append(f.usable, want.Prefix)
		}
	}
	return f, nil
}

// sysctl sets an IPv6 parameter of a link; a kernel without IPv6 has none.
func sysctl(link, name, value string) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+link+"/"+name, []byte(value), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("set %s of %s to %s: %w", name, link, value, err)
	}
	return nil
}

func writeResolv(path string, p Plan) error {
	var b strings.Builder
	for _, d := range p.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", d)
	}
	if len(p.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(p.Search, " "))
	}
	if err := renameio.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("name servers: %w", err)
	}
	return nil
}

func ipnet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}
