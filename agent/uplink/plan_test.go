// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/agent/uplink/dhcp4"
	"github.com/zos-node/zos/agent/uplink/dhcp6"
	"github.com/zos-node/zos/agent/uplink/ra"
)

var (
	start0 = time.Unix(100_000, 0)
	hw     = net.HardwareAddr{2, 0, 0, 0, 0, 1}
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func lease4(address, router, dns string) *dhcp4.Lease {
	return &dhcp4.Lease{Address: netip.MustParsePrefix(address), Router: addr(router), DNS: []netip.Addr{addr(dns)}, NTP: []netip.Addr{addr("10.0.2.123")},
		Start: start0, Duration: time.Hour}
}

func advertising() ra.View {
	return ra.View{Heard: true, MTU: 1400, Routers: []netip.Addr{addr("fe80::1"), addr("fe80::2")}, RDNSS: []netip.Addr{addr("fe80::53")}, DNSSL: []string{"example.com"},
		Prefixes: []ra.Held{
			{Prefix: netip.MustParsePrefix("2001:db8:1::/64"), OnLink: true, Autonomous: true, Valid: start0.Add(time.Hour), Preferred: start0.Add(time.Minute)},
			{Prefix: netip.MustParsePrefix("2001:db8:2::/64"), Autonomous: true},
			{Prefix: netip.MustParsePrefix("2001:db8:3::/64"), OnLink: true, Valid: start0.Add(time.Hour)}}}
}

// text is a plan in one line.
func text(p Plan) string {
	var a []string
	for _, x := range p.Addresses {
		s := x.Prefix.String()
		if !x.Valid.IsZero() {
			s += fmt.Sprintf(" until %s", x.Valid.Sub(start0))
		}
		a = append(a, s)
	}
	return fmt.Sprintf("%s: %s by %v, dns %v %v, time %v", p.Link, strings.Join(a, ", "), p.Routers, p.DNS, p.Search, p.NTP)
}

func TestDecide(t *testing.T) {
	auto := seed.Automatic()
	with := func(change func(c *seed.Network)) *seed.Network {
		c := seed.Automatic()
		change(&c)
		return &c
	}
	one := Facts{Name: "eth0", MAC: hw, Carrier: true, V4: lease4("10.0.2.15/24", "10.0.2.2", "10.0.2.3")}
	two := Facts{Name: "eth1", MAC: hw, Carrier: true, V4: lease4("10.0.3.15/24", "10.0.3.2", "10.0.3.3")}
	six := Facts{Name: "eth0", MAC: hw, Carrier: true, Routers: advertising()}
	but := func(f Facts, change func(f *Facts)) Facts { change(&f); return f }
	managed := but(six, func(f *Facts) {
		f.V6 = &dhcp6.Lease{Address: addr("2001:db8:3::9"), Start: start0, Valid: time.Hour, DNS: []netip.Addr{addr("2001:db8::53")}}
		f.Routers.Prefixes = f.Routers.Prefixes[2:]
	})
	const first = "eth0: 10.0.2.15/24 by [10.0.2.2], dns [10.0.2.3] [], time [10.0.2.123]"
	const second = "eth1: 10.0.3.15/24 by [10.0.3.2], dns [10.0.3.3] [], time [10.0.2.123]"
	const none = ":  by [], dns [] [], time []"
	for name, c := range map[string]struct {
		cfg     *seed.Network
		links   []Facts
		current string
		at      time.Duration
		want    string
	}{
		"nothing":                {&auto, []Facts{{Name: "eth0", Carrier: true}}, "", 0, none},
		"the first":              {&auto, []Facts{one, two}, "", 0, first},
		"the present one":        {&auto, []Facts{one, two}, "eth1", 0, second},
		"a cable is out":         {&auto, []Facts{but(one, func(f *Facts) { f.Carrier = false }), two}, "eth0", 0, second},
		"the only cable is out":  {&auto, []Facts{but(one, func(f *Facts) { f.Carrier = false })}, "eth0", 0, first},
		"no ledger there":        {&auto, []Facts{but(one, func(f *Facts) { f.Failed = 1 }), two}, "eth0", 0, second},
		"no ledger anywhere":     {&auto, []Facts{but(one, func(f *Facts) { f.Failed = 2 }), but(two, func(f *Facts) { f.Failed = 2 })}, "eth1", 0, second},
		"carrier beats the test": {&auto, []Facts{but(one, func(f *Facts) { f.Failed = 1 }), but(two, func(f *Facts) { f.Carrier = false })}, "eth1", 0, first},
		"the lease is over":      {&auto, []Facts{one}, "eth0", time.Hour, none},
		"advertised":             {&auto, []Facts{six}, "", 0, "eth0: 2001:db8:1::ff:fe00:1/64 until 1h0m0s, 2001:db8:2::ff:fe00:1/128 by [fe80::1], dns [fe80::53%eth0] [example.com], time []"},
		"a duplicate": {&auto, []Facts{but(six, func(f *Facts) {
			f.Duplicates = []netip.Addr{addr("2001:db8:1::ff:fe00:1")}
			f.Routers.Prefixes = f.Routers.Prefixes[:1]
		})}, "", 0, "eth0: " + interfaceAddress(netip.MustParsePrefix("2001:db8:1::/64"), hw, 1).String() + "/64 until 1h0m0s by [fe80::1], dns [fe80::53%eth0] [example.com], time []"},
		"DHCPv6 in a prefix":      {&auto, []Facts{managed}, "", 0, "eth0: 2001:db8:3::9/64 until 1h0m0s by [fe80::1], dns [fe80::53%eth0 2001:db8::53] [example.com], time []"},
		"DHCPv6's is a duplicate": {&auto, []Facts{but(managed, func(f *Facts) { f.Duplicates = []netip.Addr{addr("2001:db8:3::9")} })}, "", 0, none},
		"DHCPv6 alone":            {with(func(c *seed.Network) { c.IPv6.Mode = "dhcp" }), []Facts{but(managed, func(f *Facts) { f.Routers = ra.View{} })}, "", 0, "eth0: 2001:db8:3::9/128 until 1h0m0s by [], dns [2001:db8::53] [], time []"},
		"no IPv6":                 {with(func(c *seed.Network) { c.IPv6.Mode = "off" }), []Facts{but(one, func(f *Facts) { f.Routers = advertising() })}, "", 0, first},
		"no IPv4":                 {with(func(c *seed.Network) { c.IPv4.Mode = "off" }), []Facts{one}, "", 0, none},
		"own servers": {with(func(c *seed.Network) { c.DNS, c.NTP = []string{"9.9.9.9"}, []string{"time.example"} }), []Facts{one}, "", 0,
			"eth0: 10.0.2.15/24 by [10.0.2.2], dns [9.9.9.9] [], time [time.example]"},
		"static, both": {with(func(c *seed.Network) {
			c.IPv4 = seed.IP{Mode: "static", Address: "192.0.2.7/24", Router: "192.0.2.1"}
			c.IPv6 = seed.IP{Mode: "static", Address: "2001:db8::7/64", Router: "fe80::9"}
		}), []Facts{six}, "", 0, "eth0: 192.0.2.7/24, 2001:db8::7/64 by [192.0.2.1 fe80::9], dns [] [], time []"},
	} {
		if got := text(Decide(c.cfg, c.links, c.current, start0.Add(c.at))); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

func TestOnlyThreeNameServers(t *testing.T) {
	f := Facts{Name: "eth0", V4: lease4("10.0.2.15/24", "10.0.2.2", "10.0.2.3")}
	f.V4.DNS = []netip.Addr{addr("10.0.0.1"), addr("10.0.0.1"), addr("10.0.0.2"), addr("10.0.0.3"), addr("10.0.0.4")}
	auto := seed.Automatic()
	if p := Decide(&auto, []Facts{f}, "", start0); fmt.Sprint(p.DNS) != "[10.0.0.1 10.0.0.2 10.0.0.3]" {
		t.Error(p.DNS)
	}
}
