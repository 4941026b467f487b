// SPDX-License-Identifier: Apache-2.0

// Package dhcp6 is a DHCPv6 client (RFC 8415): it gets one address and keeps
// it, or, where addresses come by router advertisement, asks for name and time
// servers alone.
//
// Like its sister dhcp4 it is a state machine without clock, socket or
// goroutine: time and messages go in, actions come out. Client drives it on a
// real link.
package dhcp6

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// State of the client.
type State string

// The states; Informed is the one without an address.
const (
	Soliciting State = "SOLICIT"
	Requesting State = "REQUEST"
	Bound      State = "BOUND"
	Renewing   State = "RENEW"
	Rebinding  State = "REBIND"
	Asking     State = "INFORMATION-REQUEST"
	Informed   State = "INFORMED"
)

// pace is how a message is repeated: RFC 8415 section 7.6. The first time
// after first, then twice as long each time up to last; tries 0 is for ever.
type pace struct {
	first, last time.Duration
	tries       int
}

func paceOf(s State) pace {
	switch s {
	case Requesting:
		return pace{time.Second, 30 * time.Second, 10}
	case Renewing, Rebinding:
		return pace{10 * time.Second, 10 * time.Minute, 0}
	}
	return pace{time.Second, 2 * time.Minute, 0} // the RFC's hour is long for a node without a network
}

const (
	// refresh is RFC 8415's default of the information refresh time.
	refresh = 24 * time.Hour
	// refreshMin is its lower bound.
	refreshMin = 10 * time.Minute
	infinite   = 0xffffffff * time.Second
)

// Lease is what a server granted. Without an address (Address is zero) it is
// only information.
type Lease struct {
	Address   netip.Addr
	Start     time.Time
	Preferred time.Duration // from Start, like the following
	Valid     time.Duration
	T1, T2    time.Duration
	Server    string // its DUID
	DNS       []netip.Addr
	Search    []string
	NTP       []netip.Addr
}

// Action is what the machine wants done, in the order of the list.
type Action struct {
	Send   *dhcpv6.Message
	Bind   *Lease
	Unbind string // take the lease away; says why
}

// Machine is one client's state.
type Machine struct {
	duid      dhcpv6.DUID
	iaid      [4]byte
	stateless bool
	rnd       func() uint32
	state     State
	since     time.Time
	next      time.Time
	retry     time.Duration
	tries     int
	xid       dhcpv6.TransactionID
	best      *dhcpv6.Message // the advertisement with the highest preference
	server    dhcpv6.DUID
	lease     *Lease
}

// NewMachine starts at once. A node without a disk has nothing but its
// hardware address to know itself by: DUID-LL.
func NewMachine(hw net.HardwareAddr, stateless bool, rnd func() uint32, now time.Time) *Machine {
	m := &Machine{duid: &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: hw}, stateless: stateless, rnd: rnd}
	copy(m.iaid[:], hw[max(0, len(hw)-len(m.iaid)):])
	m.begin(m.first(), now)
	return m
}

func (m *Machine) first() State {
	if m.stateless {
		return Asking
	}
	return Soliciting
}

// State tells where the machine stands.
func (m *Machine) State() State { return m.state }

// Lease is the present lease, nil without one.
func (m *Machine) Lease() *Lease { return m.lease }

// Next is when Tick wants to be called.
func (m *Machine) Next() time.Time { return m.next }

// begin starts an exchange; its first message is due at once.
func (m *Machine) begin(s State, now time.Time) {
	m.state, m.since, m.next, m.retry, m.tries = s, now, now, 0, 0
	var x [4]byte
	binary.BigEndian.PutUint32(x[:], m.rnd())
	copy(m.xid[:], x[:])
	if s == Soliciting {
		m.best, m.server = nil, nil
	}
}

// Tick does what is due at now.
func (m *Machine) Tick(now time.Time) ([]Action, error) {
	if now.Before(m.next) {
		return nil, nil
	}
	if m.lease != nil {
		age := now.Sub(m.lease.Start)
		switch {
		case m.state == Informed:
			m.begin(Asking, now)
		case m.lease.Address.IsValid() && age >= m.lease.Valid:
			m.lease = nil
			m.begin(Soliciting, now)
			more, err := m.Tick(now)
			return append([]Action{{Unbind: "the address has expired"}}, more...), err
		case m.state == Bound:
			m.begin(Renewing, now)
		}
		if m.state == Renewing && age >= m.lease.T2 {
			m.begin(Rebinding, now)
		}
	}
	if m.state == Soliciting && m.best != nil {
		m.begin(Requesting, now)
	}
	p := paceOf(m.state)
	if p.tries > 0 && m.tries >= p.tries {
		m.begin(Soliciting, now)
		p = paceOf(m.state)
	}
	m.tries++
	m.retry = min(max(2*m.retry, p.first), p.last)
	const spread = 5 // a tenth earlier or later
	m.next = now.Add(m.retry - m.retry/(2*spread) + time.Duration(m.rnd())%(m.retry/spread))
	if m.lease != nil && m.lease.Address.IsValid() {
		end := m.lease.Valid
		if m.state == Renewing {
			end = min(end, m.lease.T2)
		}
		if at := m.lease.Start.Add(end); at.After(now) && at.Before(m.next) {
			m.next = at
		}
	}
	p6, err := m.message(now)
	if err != nil {
		return nil, fmt.Errorf("make DHCPv6 message: %w", err)
	}
	return []Action{{Send: p6}}, nil
}

func (m *Machine) message(now time.Time) (*dhcpv6.Message, error) {
	msg, err := dhcpv6.NewMessage()
	if err != nil {
		return nil, err
	}
	msg.TransactionID = m.xid
	msg.AddOption(dhcpv6.OptClientID(m.duid))
	msg.AddOption(dhcpv6.OptElapsedTime(min(now.Sub(m.since), 0xffff*10*time.Millisecond)))
	msg.AddOption(dhcpv6.OptRequestedOption(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList, dhcpv6.OptionNTPServer,
		dhcpv6.OptionSNTPServerList, dhcpv6.OptionInformationRefreshTime))
	ia := &dhcpv6.OptIANA{IaId: m.iaid}
	switch m.state {
	case Soliciting:
		msg.MessageType = dhcpv6.MessageTypeSolicit
	case Requesting:
		msg.MessageType = dhcpv6.MessageTypeRequest
		msg.AddOption(dhcpv6.OptServerID(m.best.Options.ServerID()))
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: m.best.Options.OneIANA().Options.OneAddress().IPv6Addr})
	case Renewing, Rebinding:
		msg.MessageType = dhcpv6.MessageTypeRebind
		if m.state == Renewing {
			msg.MessageType = dhcpv6.MessageTypeRenew
			msg.AddOption(dhcpv6.OptServerID(m.server))
		}
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: m.lease.Address.AsSlice()})
	case Asking:
		msg.MessageType = dhcpv6.MessageTypeInformationRequest
		return msg, nil
	}
	msg.AddOption(ia)
	return msg, nil
}

// Receive takes in a message.
func (m *Machine) Receive(now time.Time, p *dhcpv6.Message) ([]Action, error) {
	if p.TransactionID != m.xid || p.Options.ClientID() == nil || !m.duid.Equal(p.Options.ClientID()) || p.Options.ServerID() == nil {
		return nil, nil
	}
	switch {
	case p.MessageType == dhcpv6.MessageTypeAdvertise && m.state == Soliciting:
		return m.advertised(now, p)
	case p.MessageType == dhcpv6.MessageTypeReply && m.state != Soliciting && m.state != Bound && m.state != Informed:
		return m.replied(now, p)
	}
	return nil, nil
}

// advertised keeps the best offer until the first solicitation's time is over;
// the highest preference needs no waiting, nor does an answer to a later try.
func (m *Machine) advertised(now time.Time, p *dhcpv6.Message) ([]Action, error) {
	if err := usable(p, m.iaid); err != nil {
		return nil, fmt.Errorf("advertisement: %w", err)
	}
	if m.best == nil || p.Options.Preference() > m.best.Options.Preference() {
		m.best = p
	}
	const highest = 255
	if p.Options.Preference() == highest || m.tries > 1 {
		m.next = now
	}
	return m.Tick(now)
}

func (m *Machine) replied(now time.Time, p *dhcpv6.Message) ([]Action, error) {
	if m.state == Requesting && !m.best.Options.ServerID().Equal(p.Options.ServerID()) {
		return nil, nil
	}
	l := &Lease{Start: now, Server: fmt.Sprintf("%x", p.Options.ServerID().ToBytes()), DNS: addresses(p.Options.DNS()),
		NTP: append(addresses(p.Options.NTPServers()), addresses(p.Options.SNTP())...)}
	if s := p.Options.DomainSearchList(); s != nil {
		l.Search = s.Labels
	}
	if m.state == Asking {
		if err := status(p.Options.Status()); err != nil {
			return nil, fmt.Errorf("information: %w", err)
		}
		m.lease, m.state = l, Informed
		m.next = now.Add(max(p.Options.InformationRefreshTime(refresh), refreshMin))
		return []Action{{Bind: l}}, nil
	}
	if err := usable(p, m.iaid); err != nil {
		if errors.Is(err, errBinding) && m.lease != nil {
			// The server does not know us any more: RFC 8415 18.2.10.1.
			m.lease = nil
			m.begin(Soliciting, now)
			return []Action{{Unbind: "the server refused: " + err.Error()}}, nil
		}
		if m.state == Requesting {
			m.begin(Soliciting, now)
			m.next = now.Add(time.Second) // not in a loop
		}
		return nil, fmt.Errorf("reply: %w", err)
	}
	ia := p.Options.OneIANA()
	a := ia.Options.OneAddress()
	l.Address, _ = netip.AddrFromSlice(a.IPv6Addr.To16())
	l.Preferred, l.Valid = a.PreferredLifetime, a.ValidLifetime
	l.T1, l.T2 = times(l.Preferred, l.Valid, ia.T1, ia.T2)
	m.lease, m.state, m.server, m.best = l, Bound, p.Options.ServerID(), nil
	m.next = now.Add(l.T1)
	return []Action{{Bind: l}}, nil
}

var errBinding = errors.New("no address for us")

func usable(p *dhcpv6.Message, iaid [4]byte) error {
	if err := status(p.Options.Status()); err != nil {
		return err
	}
	ia := p.Options.OneIANA()
	if ia == nil || ia.IaId != iaid {
		return errBinding
	}
	if err := status(ia.Options.Status()); err != nil {
		return fmt.Errorf("%w: %w", errBinding, err)
	}
	a := ia.Options.OneAddress()
	if a == nil || a.ValidLifetime <= 0 || a.PreferredLifetime > a.ValidLifetime {
		return errBinding
	}
	addr, ok := netip.AddrFromSlice(a.IPv6Addr.To16())
	if !ok || addr.Is4In6() || !addr.IsGlobalUnicast() {
		return fmt.Errorf("%s is no address for a node", a.IPv6Addr)
	}
	return nil
}

func status(s *dhcpv6.OptStatusCode) error {
	if s == nil || s.StatusCode == iana.StatusSuccess {
		return nil
	}
	return fmt.Errorf("%s: %q", s.StatusCode, s.StatusMessage)
}

// times fills T1 and T2 with RFC 8415's recommendation (21.4) where the server
// leaves them to us or makes no sense.
func times(preferred, valid, t1, t2 time.Duration) (time.Duration, time.Duration) {
	if valid >= infinite {
		return infinite, infinite
	}
	base := preferred
	if base == 0 {
		base = valid
	}
	if t2 <= 0 || t2 > valid {
		t2 = min(base/5*4, valid)
	}
	if t1 <= 0 || t1 > t2 {
		t1 = min(base/2, t2)
	}
	return t1, t2
}

func addresses(ips []net.IP) []netip.Addr {
	var out []netip.Addr
	for _, ip := range ips {
		if a, ok := netip.AddrFromSlice(ip.To16()); ok && !a.Is4In6() && !a.IsUnspecified() {
			out = append(out, a)
		}
	}
	return out
}
