// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
)

// TableName is the name of both tables.
const TableName = "zos"

// bridgeWildcard matches every bridge that this package makes.
const bridgeWildcard = "zb*"

const (
	tcp    = 6
	udp    = 17
	icmp   = 1
	icmpv6 = 58

	dhcpServer  = 67
	dhcpClient  = 68
	dhcp6Server = 547
	dhcp6Client = 546
	echo        = 8

	echoV6       = 128
	routerAdvert = 134
	neighbourAsk = 135
	neighbourIs  = 136
)

// linkLocal holds cloud metadata services and the like: no guest's business.
func linkLocal() netip.Prefix { return netip.MustParsePrefix("169.254.0.0/16") }

// Ruleset is the whole packet filter of the node.
type Ruleset struct{ Tables []Table }

// Table is one nftables table.
type Table struct {
	Family string // "inet" or "bridge"
	Chains []Chain
}

// Chain is a base chain.
type Chain struct {
	Name     string
	Type     string // "filter" or "nat"
	Hook     string
	Priority int
	Drop     bool // policy; else accept
	Rules    []Rule
}

// Rule is a list of matches and what happens when all hold.
type Rule struct {
	Matches []Match
	Verdict Verdict
}

// Verdict ends a rule.
type Verdict struct {
	Kind string         // "accept", "drop", "dnat" or "masquerade"
	To   netip.AddrPort // dnat
}

// Rules makes the packet filter for the deployments on a node whose outside
// is the link uplink ("" while there is none). It is a pure function.
func Rules(uplink string, plans []*Plan) Ruleset {
	return Ruleset{Tables: []Table{inetTable(uplink, plans), bridgeTable(plans)}}
}

func accept(m ...Match) Rule { return Rule{m, Verdict{Kind: "accept"}} }
func drop(m ...Match) Rule   { return Rule{m, Verdict{Kind: "drop"}} }

func inetTable(uplink string, plans []*Plan) Table {
	input := Chain{Name: "input", Type: "filter", Hook: "input", Drop: true, Rules: []Rule{
		accept(InIface("lo")),
		// Before established: a guest is answered by the node in no case.
		drop(InIface(bridgeWildcard)),
		accept(Established{}),
		// IPv6 works without these on no link, and while the agent looks for an
		// uplink it asks on all of them. Bridges were dropped above.
		accept(Proto(icmpv6), ICMPv6Type(routerAdvert)),
		accept(Proto(icmpv6), ICMPv6Type(neighbourAsk)),
		accept(Proto(icmpv6), ICMPv6Type(neighbourIs)),
		accept(Proto(udp), SPort(dhcp6Server), DPort(dhcp6Client)),
	}}
	forward := Chain{Name: "forward", Type: "filter", Hook: "forward", Drop: true, Rules: []Rule{
		accept(Established{}),
	}}
	dstnat := Chain{Name: "dstnat", Type: "nat", Hook: "prerouting", Priority: -100}
	srcnat := Chain{Name: "srcnat", Type: "nat", Hook: "postrouting", Priority: 100}
	if uplink != "" {
		input.Rules = append(input.Rules,
			accept(InIface(uplink), Proto(udp), SPort(dhcpServer), DPort(dhcpClient)),
			accept(InIface(uplink), Proto(icmp), ICMPType(echo)),
			accept(InIface(uplink), Proto(icmpv6), ICMPv6Type(echoV6)))
		forward.Rules = append(forward.Rules, drop(InIface(bridgeWildcard), IPv4{}, DAddr(linkLocal())))
		for _, p := range plans {
			for _, n := range p.Networks {
				if n.Outbound {
					forward.Rules = append(forward.Rules, accept(InIface(n.Bridge), OutIface(uplink), IPv4{}, SAddr(n.Host.Masked())))
					srcnat.Rules = append(srcnat.Rules, Rule{[]Match{OutIface(uplink), IPv4{}, SAddr(n.Host.Masked())}, Verdict{Kind: "masquerade"}})
				}
			}
			for _, g := range p.Gateways {
				to := []Match{IPv4{}, DAddr(netip.PrefixFrom(g.Target.Addr(), 32)), Proto(tcp), DPort(g.Target.Port()), Translated{}}
				dstnat.Rules = append(dstnat.Rules, Rule{[]Match{InIface(uplink), IPv4{}, Proto(tcp), DPort(g.Port)}, Verdict{Kind: "dnat", To: g.Target}})
				forward.Rules = append(forward.Rules, accept(append([]Match{InIface(uplink), OutIface(g.Bridge)}, to...)...))
				if g.Masquerade {
					srcnat.Rules = append(srcnat.Rules, Rule{append([]Match{OutIface(g.Bridge)}, to...), Verdict{Kind: "masquerade"}})
				}
			}
		}
	}
	return Table{Family: "inet", Chains: []Chain{input, forward, dstnat, srcnat}}
}

// bridgeTable lets a tap send IPv4 and ARP with exactly its own addresses.
// Everything else, so also IPv6, VLAN tags and any other protocol, meets the
// policy. A machine has no business as a DHCP server either.
func bridgeTable(plans []*Plan) Table {
	c := Chain{Name: "prerouting", Type: "filter", Hook: "prerouting", Priority: -300, Drop: true}
	for _, p := range plans {
		for _, n := range p.Networks {
			for _, t := range n.Taps {
				own := []Match{InIface(t.Name), EtherSAddr(t.MAC)}
				with := func(m ...Match) []Match { return append(append([]Match(nil), own...), m...) }
				src := SAddr(netip.PrefixFrom(t.Address, 32))
				c.Rules = append(c.Rules,
					drop(with(EtherType(etherIPv4), src, Proto(udp), SPort(dhcpServer))...),
					accept(with(EtherType(etherIPv4), src)...),
					accept(with(EtherType(etherARP), ARPSenderMAC(t.MAC), ARPSenderIP(t.Address))...))
			}
		}
	}
	return Table{Family: "bridge", Chains: []Chain{c}}
}
