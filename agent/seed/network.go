// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"net"
	"net/netip"
	"regexp"
	"slices"

	"github.com/zos-node/zos/spec/strict"
)

const (
	macLen   = 6
	linksMax = 16
	listMax  = 8
	vlanMax  = 4094
	// A counted repetition would be compiled to as many states, in every boot.
	linkNameMax = 15 // IFNAMSIZ, without the end
	hostNameMax = 253
)

var (
	linkName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)
)

func (n *Network) validate(path string) error {
	at := func(field string) string { return strict.Join(path, field) }
	if len(n.Links) > linksMax {
		return strict.Errorf(at("links"), "has %d entries, at most %d are allowed", len(n.Links), linksMax)
	}
	for i, l := range n.Links {
		hw, err := net.ParseMAC(l)
		if mac := err == nil && len(hw) == macLen && hw.String() == l; !mac && (len(l) > linkNameMax || !linkName.MatchString(l)) {
			return strict.Errorf(strict.Index(at("links"), i), "is %q, want an address such as 52:54:00:12:34:56 or a name such as eth0", l)
		}
		if slices.Contains(n.Links[:i], l) {
			return strict.Errorf(strict.Index(at("links"), i), "%q is there twice", l)
		}
	}
	switch n.Bond {
	case BondNone, BondLACP, BondActiveBackup:
	default:
		return strict.Errorf(at("bond"), "is %q, want %s, %s or %s", n.Bond, BondNone, BondLACP, BondActiveBackup)
	}
	if n.VLAN < 0 || n.VLAN > vlanMax {
		return strict.Errorf(at("vlan"), "is %d, want 1 to %d, or 0 for untagged", n.VLAN, vlanMax)
	}
	if n.IPv4.Mode == ModeOff && n.IPv6.Mode == ModeOff {
		return strict.Errorf(strict.Join(at("ipv6"), "mode"), "and ipv4.mode are both off")
	}
	if err := n.IPv4.validate(at("ipv4"), netip.Addr.Is4, "IPv4", ModeDHCP, ModeStatic, ModeOff); err != nil {
		return err
	}
	if err := n.IPv6.validate(at("ipv6"), func(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }, "IPv6", ModeAuto, ModeDHCP, ModeStatic, ModeOff); err != nil {
		return err
	}
	if len(n.DNS) > listMax || len(n.NTP) > listMax {
		return strict.Errorf(at("dns"), "and ntp may have %d entries", listMax)
	}
	for i, d := range n.DNS {
		if a, err := netip.ParseAddr(d); err != nil || a.Zone() != "" {
			return strict.Errorf(strict.Index(at("dns"), i), "is %q, want an IP address", d)
		}
	}
	for i, h := range n.NTP {
		if a, err := netip.ParseAddr(h); (err != nil || a.Zone() != "") && (len(h) > hostNameMax || !hostName.MatchString(h)) {
			return strict.Errorf(strict.Index(at("ntp"), i), "is %q, want an IP address or a host name", h)
		}
	}
	return nil
}

func (p *IP) validate(path string, family func(netip.Addr) bool, name string, modes ...string) error {
	at := func(field string) string { return strict.Join(path, field) }
	if !slices.Contains(modes, p.Mode) {
		return strict.Errorf(at("mode"), "is %q, want one of %q", p.Mode, modes)
	}
	if p.Mode != ModeStatic {
		if p.Address != "" || p.Router != "" {
			return strict.Errorf(at("address"), "and router must be empty with mode %s", p.Mode)
		}
		return nil
	}
	own, err := netip.ParsePrefix(p.Address)
	if err != nil || !family(own.Addr()) || own.Bits() == 0 || own.Addr().IsMulticast() || own.Addr().IsUnspecified() {
		return strict.Errorf(at("address"), "is %q, want an %s address and its prefix length, such as %s", p.Address, name, addressExample[name])
	}
	if p.Router == "" {
		return nil
	}
	router, err := netip.ParseAddr(p.Router)
	if err != nil || !family(router) || router.Zone() != "" {
		return strict.Errorf(at("router"), "is %q, want an %s address or nothing", p.Router, name)
	}
	if !reaches(own, router) {
		return strict.Errorf(at("router"), "is %s, which is none of the other addresses of %s, where the node itself is: want a router there", p.Router, own.Masked())
	}
	return nil
}

// addressExample is the wanted form of an address, by family.
var addressExample = map[string]string{"IPv4": "10.0.0.2/24", "IPv6": "2001:db8::2/64"}

// reaches says whether a router can be a neighbour of a node with the address. A
// link-local one is on every link. An address that is alone in its prefix has
// no link to compare with: whoever hands such ones out has the router elsewhere.
func reaches(own netip.Prefix, router netip.Addr) bool {
	switch {
	case router == own.Addr(), router.IsMulticast(), router.IsUnspecified():
		return false
	case router.IsLinkLocalUnicast(), own.IsSingleIP():
		return true
	}
	return own.Contains(router)
}
