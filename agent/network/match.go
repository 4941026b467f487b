// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Match is one condition of a rule: it reads as nft writes it, and knows the
// kernel expressions that mean it.
type Match interface {
	fmt.Stringer
	exprs() []expr.Any
}

const (
	etherIPv4 = EtherType(unix.ETH_P_IP)
	etherARP  = EtherType(unix.ETH_P_ARP)

	// Offsets in the Ethernet header.
	offEtherSrc  = 6
	offEtherType = 12
	// Offsets in the IPv4 header.
	offIPSrc = 12
	offIPDst = 16
	// Offsets in an ARP packet for IPv4 over Ethernet.
	offARPSenderMAC = 8
	offARPSenderIP  = 14
	macLen          = 6
	ipLen           = 4
)

// InIface is the link that a packet came in by; a final * matches any rest.
type InIface string

func (m InIface) String() string    { return fmt.Sprintf("iifname %q", string(m)) }
func (m InIface) exprs() []expr.Any { return iface(expr.MetaKeyIIFNAME, string(m)) }

// OutIface is the link that a packet goes out by.
type OutIface string

func (m OutIface) String() string    { return fmt.Sprintf("oifname %q", string(m)) }
func (m OutIface) exprs() []expr.Any { return iface(expr.MetaKeyOIFNAME, string(m)) }

func iface(key expr.MetaKey, name string) []expr.Any {
	var data []byte
	if prefix, ok := strings.CutSuffix(name, "*"); ok {
		data = []byte(prefix) // compared over its own length only
	} else {
		data = make([]byte, unix.IFNAMSIZ)
		copy(data, name)
	}
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, eq(data)}
}

func eq(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func payload(base expr.PayloadBase, off uint32, data []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: base, Offset: off, Len: uint32(len(data))}, eq(data)}
}

// EtherSAddr is the sender's MAC address.
type EtherSAddr string

func (m EtherSAddr) String() string { return "ether saddr " + string(m) }
func (m EtherSAddr) exprs() []expr.Any {
	return payload(expr.PayloadBaseLLHeader, offEtherSrc, mac(string(m)))
}

// mac is only given what plan derived; anything else
// becomes an address that no packet has.
func mac(s string) []byte {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != macLen {
		return make([]byte, macLen)
	}
	return hw
}

// EtherType is the protocol in the Ethernet header as it was on the wire, so
// that a VLAN tag is not looked through.
type EtherType uint16

func (m EtherType) String() string {
	switch m {
	case etherIPv4:
		return "ether type ip"
	case etherARP:
		return "ether type arp"
	}
	return fmt.Sprintf("ether type 0x%04x", uint16(m))
}
func (m EtherType) exprs() []expr.Any {
	return payload(expr.PayloadBaseLLHeader, offEtherType, binary.BigEndian.AppendUint16(nil, uint16(m)))
}

// IPv4 stands before an address in an inet table, where IPv6 comes by as well.
type IPv4 struct{}

func (IPv4) String() string { return "meta nfproto ipv4" }
func (IPv4) exprs() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, eq([]byte{unix.NFPROTO_IPV4})}
}

// SAddr is the IPv4 source; IPv4 or EtherType stands before it.
type SAddr netip.Prefix

func (m SAddr) String() string    { return "ip saddr " + prefix(netip.Prefix(m)) }
func (m SAddr) exprs() []expr.Any { return ipv4(offIPSrc, netip.Prefix(m)) }

// DAddr is the IPv4 destination; IPv4 or EtherType stands before it.
type DAddr netip.Prefix

func (m DAddr) String() string    { return "ip daddr " + prefix(netip.Prefix(m)) }
func (m DAddr) exprs() []expr.Any { return ipv4(offIPDst, netip.Prefix(m)) }

func prefix(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func ipv4(off uint32, p netip.Prefix) []expr.Any {
	a := p.Addr().As4()
	if p.IsSingleIP() {
		return payload(expr.PayloadBaseNetworkHeader, off, a[:])
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: off, Len: ipLen},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: ipLen, Mask: net.CIDRMask(p.Bits(), 8*ipLen), Xor: make([]byte, ipLen)},
		eq(a[:])}
}

// Proto is the transport protocol.
type Proto uint8

func (m Proto) String() string {
	switch m {
	case tcp:
		return "meta l4proto tcp"
	case udp:
		return "meta l4proto udp"
	case icmp:
		return "meta l4proto icmp"
	case icmpv6:
		return "meta l4proto ipv6-icmp"
	}
	return fmt.Sprintf("meta l4proto %d", uint8(m))
}
func (m Proto) exprs() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, eq([]byte{byte(m)})}
}

// SPort is the source port; a Proto stands before it.
type SPort uint16

func (m SPort) String() string { return fmt.Sprintf("th sport %d", uint16(m)) }
func (m SPort) exprs() []expr.Any {
	return payload(expr.PayloadBaseTransportHeader, 0, binary.BigEndian.AppendUint16(nil, uint16(m)))
}

// DPort is the destination port; a Proto stands before it.
type DPort uint16

func (m DPort) String() string { return fmt.Sprintf("th dport %d", uint16(m)) }
func (m DPort) exprs() []expr.Any {
	return payload(expr.PayloadBaseTransportHeader, 2, binary.BigEndian.AppendUint16(nil, uint16(m)))
}

// ICMPType is the type of an ICMP message.
type ICMPType uint8

func (m ICMPType) String() string { return fmt.Sprintf("icmp type %d", uint8(m)) }
func (m ICMPType) exprs() []expr.Any {
	return payload(expr.PayloadBaseTransportHeader, 0, []byte{byte(m)})
}

// ICMPv6Type is the type of an ICMPv6 message; a Proto stands before it.
type ICMPv6Type uint8

func (m ICMPv6Type) String() string { return fmt.Sprintf("icmpv6 type %d", uint8(m)) }
func (m ICMPv6Type) exprs() []expr.Any {
	return payload(expr.PayloadBaseTransportHeader, 0, []byte{byte(m)})
}

// ARPSenderMAC is the hardware address that an ARP packet claims.
type ARPSenderMAC string

func (m ARPSenderMAC) String() string { return "arp saddr ether " + string(m) }
func (m ARPSenderMAC) exprs() []expr.Any {
	return payload(expr.PayloadBaseNetworkHeader, offARPSenderMAC, mac(string(m)))
}

// ARPSenderIP is the IPv4 address that an ARP packet claims.
type ARPSenderIP netip.Addr

func (m ARPSenderIP) String() string { return "arp saddr ip " + netip.Addr(m).String() }
func (m ARPSenderIP) exprs() []expr.Any {
	a := netip.Addr(m).As4()
	return payload(expr.PayloadBaseNetworkHeader, offARPSenderIP, a[:])
}

// Established is a packet of a connection that was let in before.
type Established struct{}

func (Established) String() string { return "ct state established,related" }
func (Established) exprs() []expr.Any {
	return bits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

// Translated is a packet whose destination a gateway has rewritten: nobody
// outside can address a machine directly.
type Translated struct{}

// ipsDstNAT is IPS_DST_NAT of the kernel's conntrack status bits.
const ipsDstNAT = 1 << 5

func (Translated) String() string    { return "ct status dnat" }
func (Translated) exprs() []expr.Any { return bits(expr.CtKeySTATUS, ipsDstNAT) }

func bits(key expr.CtKey, mask uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)}}
}
