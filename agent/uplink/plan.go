// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"cmp"
	"crypto/sha256"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/agent/uplink/dhcp4"
	"github.com/zos-node/zos/agent/uplink/dhcp6"
	"github.com/zos-node/zos/agent/uplink/ra"
)

// Facts are what was observed of one link.
type Facts struct {
	Name       string
	MAC        net.HardwareAddr
	Carrier    bool
	V4         *dhcp4.Lease
	V6         *dhcp6.Lease
	Routers    ra.View      // at the time of the decision
	Duplicates []netip.Addr // that somebody else on the link has already
	Failed     int          // tests against the ledger that failed since one succeeded
}

// Plan is the uplink as it should stand. A plan without addresses is no
// uplink.
type Plan struct {
	Link      string
	Addresses []Address
	Routers   []netip.Addr // at most one of each family
	MTU       int          // of IPv6; 0: the link's
	DNS       []netip.Addr
	Search    []string
	NTP       []string
}

// Address is one address with the times up to which it may be used, zero for
// ever.
type Address struct {
	Prefix           netip.Prefix
	Preferred, Valid time.Time
}

// Usable says whether the plan is an uplink.
func (p Plan) Usable() bool { return len(p.Addresses) > 0 }

// Equal compares two plans.
func (p Plan) Equal(o Plan) bool { return reflect.DeepEqual(p, o) }

const (
	maxDNS = 3 // of resolv.conf
	// maxAttempts of making an address in a prefix: RFC 7217 section 6.
	maxAttempts = 4
	hostBits6   = 128
)

// Decide says which link is the uplink and what it has. It is a pure function
// of the configuration, what was observed of each link in the configuration's
// order, and which link is the uplink now.
//
// A link with carrier is better than one without, then one whose tests against
// the ledger failed less often, then the present one, then the order. A link
// without any address is none.
func Decide(cfg *seed.Network, links []Facts, current string, now time.Time) Plan {
	type choice struct {
		facts Facts
		plan  Plan
		order int
	}
	var choices []choice
	for i, f := range links {
		if p := planOf(cfg, f, now); p.Usable() {
			choices = append(choices, choice{f, p, i})
		}
	}
	if len(choices) == 0 {
		return Plan{}
	}
	no := func(b bool) int {
		if b {
			return 0
		}
		return 1
	}
	return slices.MinFunc(choices, func(a, b choice) int {
		return cmp.Or(cmp.Compare(no(a.facts.Carrier), no(b.facts.Carrier)), cmp.Compare(a.facts.Failed, b.facts.Failed),
			cmp.Compare(no(a.plan.Link == current), no(b.plan.Link == current)), cmp.Compare(a.order, b.order))
	}).plan
}

// planOf is what the uplink would be on one link.
func planOf(cfg *seed.Network, f Facts, now time.Time) Plan {
	p := Plan{Link: f.Name}
	static(&p, cfg.IPv4)
	static(&p, cfg.IPv6)
	var dns []netip.Addr
	var ntp []string
	add := func(list []netip.Addr) {
		for _, a := range list {
			ntp = append(ntp, a.String())
		}
	}
	if l := f.V4; cfg.IPv4.Mode == seed.ModeDHCP && l != nil && now.Before(l.Start.Add(l.Duration)) {
		p.Addresses = append(p.Addresses, Address{Prefix: l.Address})
		if l.Router.IsValid() {
			p.Routers = append(p.Routers, l.Router)
		}
		dns = append(dns, l.DNS...)
		add(l.NTP)
	}
	if cfg.IPv6.Mode == seed.ModeAuto || cfg.IPv6.Mode == seed.ModeDHCP {
		if cfg.IPv6.Mode == seed.ModeAuto {
			p.Addresses = append(p.Addresses, advertised(f)...)
		}
		if l := f.V6; l != nil && l.Address.IsValid() && now.Before(l.Start.Add(l.Valid)) && !slices.Contains(f.Duplicates, l.Address) {
			p.Addresses = append(p.Addresses, Address{onLink(l.Address, f.Routers), l.Start.Add(l.Preferred), l.Start.Add(l.Valid)})
		}
		if len(f.Routers.Routers) > 0 {
			p.Routers = append(p.Routers, f.Routers.Routers[0])
		}
		p.MTU, p.Search = f.Routers.MTU, f.Routers.DNSSL
		for _, d := range f.Routers.RDNSS {
			if d.IsLinkLocalUnicast() {
				d = d.WithZone(f.Name)
			}
			dns = append(dns, d)
		}
		if l := f.V6; l != nil {
			dns = append(dns, l.DNS...)
			if len(p.Search) == 0 {
				p.Search = l.Search
			}
			add(l.NTP)
		}
	}
	if len(cfg.DNS) > 0 {
		dns = nil
		for _, d := range cfg.DNS {
			if a, err := netip.ParseAddr(d); err == nil { // the seed's decoder has checked it
				dns = append(dns, a)
			}
		}
	}
	for _, d := range dns {
		if !slices.Contains(p.DNS, d) && len(p.DNS) < maxDNS {
			p.DNS = append(p.DNS, d)
		}
	}
	p.NTP = ntp
	if len(cfg.NTP) > 0 {
		p.NTP = cfg.NTP
	}
	return p
}

func static(p *Plan, c seed.IP) {
	if c.Mode != seed.ModeStatic {
		return
	}
	address, err := netip.ParsePrefix(c.Address)
	if err != nil {
		return // the seed's decoder lets none by
	}
	p.Addresses = append(p.Addresses, Address{Prefix: address})
	if r, err := netip.ParseAddr(c.Router); err == nil {
		p.Routers = append(p.Routers, r)
	}
}

// advertised makes an address in each prefix that a router lets us: that of
// the hardware address, so that an operator knows it, or, where somebody has
// that already, one of a hash that is the same at each boot.
func advertised(f Facts) []Address {
	var out []Address
	for _, x := range f.Routers.Prefixes {
		if !x.Autonomous {
			continue
		}
		for attempt := range maxAttempts {
			a := interfaceAddress(x.Prefix, f.MAC, attempt)
			if slices.Contains(f.Duplicates, a) {
				continue
			}
			bits := hostBits6
			if x.OnLink {
				bits = x.Prefix.Bits()
			}
			out = append(out, Address{netip.PrefixFrom(a, bits), x.Preferred, x.Valid})
			break
		}
	}
	return out
}

// interfaceAddress is the modified EUI-64 of RFC 4291 appendix A at the first
// attempt.
func interfaceAddress(p netip.Prefix, mac net.HardwareAddr, attempt int) netip.Addr {
	a := p.Addr().As16()
	if attempt == 0 && len(mac) == 6 {
		copy(a[8:], []byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
		return netip.AddrFrom16(a)
	}
	sum := sha256.Sum256(append(append(a[:8:8], mac...), byte(attempt)))
	copy(a[8:], sum[:8])
	return netip.AddrFrom16(a)
}

// onLink gives an address of DHCPv6, which has no prefix length, that of the
// advertised on-link prefix that it lies in.
func onLink(a netip.Addr, v ra.View) netip.Prefix {
	for _, x := range v.Prefixes {
		if x.OnLink && x.Prefix.Contains(a) {
			return netip.PrefixFrom(a, x.Prefix.Bits())
		}
	}
	return netip.PrefixFrom(a, hostBits6)
}
