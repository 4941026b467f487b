// SPDX-License-Identifier: Apache-2.0

// Package dhcp4 is a DHCPv4 client that keeps its lease for as long as the
// node lives: it renews at T1, asks every server at T2, and gives the address
// up when the lease ends.
//
// It is a state machine without clock, socket or goroutine (Machine, after
// RFC 2131 section 4.4): time and packets go in, actions come out. Client
// drives it on a real link. Who uses the lease, and whether, is decided
// elsewhere.
package dhcp4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// State of the DHCP client.
type State string

// The states of RFC 2131, figure 5, without those of a diskless reboot.
const (
	Init       State = "INIT"
	Selecting  State = "SELECTING"
	Requesting State = "REQUESTING"
	Bound      State = "BOUND"
	Renewing   State = "RENEWING"
	Rebinding  State = "REBINDING"
)

const (
	firstRetry   = time.Second
	lastRetry    = 64 * time.Second
	requestTries = 4
	// minRenew is RFC 2131's shortest distance of two renewal requests.
	minRenew = time.Minute
	// infinite is the lease time that never ends.
	infinite = 0xffffffff * time.Second
	bits32   = 32
)

// Lease is what a server granted.
type Lease struct {
	Address  netip.Prefix
	Router   netip.Addr // zero when there is none
	DNS      []netip.Addr
	NTP      []netip.Addr // RFC 2132 option 42
	Server   netip.Addr
	Start    time.Time
	Duration time.Duration
	T1, T2   time.Duration // from Start
}

// Action is what the machine wants done, in the order of the list.
type Action struct {
	Send   *dhcpv4.DHCPv4
	To     netip.Addr // of Send: the server, or zero for a broadcast
	Bind   *Lease     // put this in place of what there is
	Unbind string     // take the lease away; says why
}

// Machine is one client's state.
type Machine struct {
	hw    net.HardwareAddr
	host  string
	rnd   func() uint32
	state State
	since time.Time // of the present exchange, for the packets' seconds field
	next  time.Time
	retry time.Duration
	tries int
	xid   dhcpv4.TransactionID
	offer *dhcpv4.DHCPv4
	lease *Lease
	naks  int
}

// NewMachine starts in INIT; the first Tick sends a DHCPDISCOVER.
func NewMachine(hw net.HardwareAddr, host string, rnd func() uint32, now time.Time) *Machine {
	return &Machine{hw: hw, host: host, rnd: rnd, state: Init, next: now}
}

// State tells where the machine stands.
func (m *Machine) State() State { return m.state }

// Lease is the present lease, nil without one.
func (m *Machine) Lease() *Lease { return m.lease }

// Next is when Tick wants to be called.
func (m *Machine) Next() time.Time { return m.next }

// Tick does what is due at now.
func (m *Machine) Tick(now time.Time) ([]Action, error) {
	if now.Before(m.next) {
		return nil, nil
	}
	switch m.state {
	case Init:
		m.begin(now)
		m.state, m.retry = Selecting, firstRetry
		return m.again(now, m.discover)
	case Selecting:
		m.retry = min(2*m.retry, lastRetry)
		return m.again(now, m.discover)
	case Requesting:
		m.tries++
		if m.tries >= requestTries {
			m.restart(now, 0)
			return m.Tick(now)
		}
		m.retry *= 2
		return m.again(now, m.request)
	default:
		return m.leased(now)
	}
}

// leased handles the passing of T1, T2 and the end of a lease.
func (m *Machine) leased(now time.Time) ([]Action, error) {
	age := now.Sub(m.lease.Start)
	switch {
	case age >= m.lease.Duration:
		m.lease = nil
		m.restart(now, 0)
		more, err := m.Tick(now)
		return append([]Action{{Unbind: "the lease has expired"}}, more...), err
	case age >= m.lease.T2:
		if m.state != Rebinding {
			m.begin(now)
		}
		m.state = Rebinding
		m.next = m.lease.Start.Add(age + half(m.lease.Duration-age))
		return m.renew(netip.Addr{}, now)
	default:
		if m.state != Renewing {
			m.begin(now)
		}
		m.state = Renewing
		m.next = m.lease.Start.Add(min(age+half(m.lease.T2-age), m.lease.T2))
		return m.renew(m.lease.Server, now)
	}
}

// half the time that is left, but no flood of requests towards the end, and
// never past the end itself.
func half(left time.Duration) time.Duration { return min(max(left/2, minRenew), left) }

// Receive takes in a packet.
func (m *Machine) Receive(now time.Time, p *dhcpv4.DHCPv4) ([]Action, error) {
	if p.OpCode != dhcpv4.OpcodeBootReply || p.TransactionID != m.xid || p.ClientHWAddr.String() != m.hw.String() {
		return nil, nil
	}
	switch typ := p.MessageType(); {
	case m.state == Selecting && typ == dhcpv4.MessageTypeOffer:
		if p.ServerIdentifier().To4() == nil || p.YourIPAddr.To4() == nil || p.YourIPAddr.IsUnspecified() {
			return nil, errors.New("offer without address or server")
		}
		m.offer, m.state, m.retry, m.tries = p, Requesting, firstRetry, 0
		return m.again(now, m.request)
	case typ == dhcpv4.MessageTypeAck && (m.state == Requesting || m.state == Renewing || m.state == Rebinding):
		if m.state == Requesting && !p.ServerIdentifier().Equal(m.offer.ServerIdentifier()) {
			return nil, nil
		}
		lease, err := leaseOf(p, now)
		if err != nil {
			return nil, fmt.Errorf("acknowledgement: %w", err)
		}
		m.lease, m.state, m.naks, m.offer = lease, Bound, 0, nil
		m.next = lease.Start.Add(lease.T1)
		return []Action{{Bind: lease}}, nil
	case typ == dhcpv4.MessageTypeNak && (m.state == Requesting || m.state == Renewing || m.state == Rebinding):
		if m.state == Requesting && !p.ServerIdentifier().Equal(m.offer.ServerIdentifier()) {
			return nil, nil
		}
		var out []Action
		if m.lease != nil {
			m.lease = nil
			out = []Action{{Unbind: "the server refused: " + p.Message()}}
		}
		// A server that refuses what it offers must not be asked in a loop.
		m.naks++
		m.restart(now, min(firstRetry<<min(m.naks-1, 6), lastRetry))
		return out, nil
	}
	return nil, nil
}

func (m *Machine) restart(now time.Time, after time.Duration) {
	m.state, m.offer, m.next = Init, nil, now.Add(after)
}

// begin starts an exchange with a transaction id of its own.
func (m *Machine) begin(now time.Time) {
	binary.BigEndian.PutUint32(m.xid[:], m.rnd())
	m.since = now
}

// again sends and sets the time of the next try, up to a tenth of it early or
// late, so that a rack that boots at once does not ask at once.
func (m *Machine) again(now time.Time, make func() (*dhcpv4.DHCPv4, error)) ([]Action, error) {
	const spread = 5
	jitter := time.Duration(m.rnd()) % (m.retry / spread)
	m.next = now.Add(m.retry - m.retry/(2*spread) + jitter)
	return m.send(now, netip.Addr{}, make)
}

func (m *Machine) send(now time.Time, to netip.Addr, make func() (*dhcpv4.DHCPv4, error)) ([]Action, error) {
	p, err := make()
	if err != nil {
		return nil, fmt.Errorf("make DHCP packet: %w", err)
	}
	p.NumSeconds = uint16(min(now.Sub(m.since)/time.Second, 0xffff))
	return []Action{{Send: p, To: to}}, nil
}

func (m *Machine) common(typ dhcpv4.MessageType) []dhcpv4.Modifier {
	return []dhcpv4.Modifier{
		dhcpv4.WithTransactionID(m.xid), dhcpv4.WithHwAddr(m.hw), dhcpv4.WithMessageType(typ),
		dhcpv4.WithOption(dhcpv4.OptHostName(m.host)),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, m.hw...))),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionNTPServers,
			dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue),
	}
}

func (m *Machine) discover() (*dhcpv4.DHCPv4, error) {
	return dhcpv4.New(m.common(dhcpv4.MessageTypeDiscover)...)
}

func (m *Machine) request() (*dhcpv4.DHCPv4, error) {
	return dhcpv4.New(append(m.common(dhcpv4.MessageTypeRequest),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(m.offer.ServerIdentifier())),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(m.offer.YourIPAddr)))...)
}

// renew asks for more time: the address stands in ciaddr, no server is named.
func (m *Machine) renew(to netip.Addr, now time.Time) ([]Action, error) {
	return m.send(now, to, func() (*dhcpv4.DHCPv4, error) {
		return dhcpv4.New(append(m.common(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(m.lease.Address.Addr().AsSlice()))...)
	})
}

func leaseOf(p *dhcpv4.DHCPv4, now time.Time) (*Lease, error) {
	addr, ok := netip.AddrFromSlice(p.YourIPAddr.To4())
	if !ok || addr.IsUnspecified() {
		return nil, errors.New("no address")
	}
	mask := p.SubnetMask()
	if mask == nil {
		mask = p.YourIPAddr.DefaultMask()
	}
	ones, bits := mask.Size()
	if bits != bits32 || ones == 0 {
		return nil, fmt.Errorf("subnet mask %s", mask)
	}
	l := &Lease{Address: netip.PrefixFrom(addr, ones), Start: now, Duration: p.IPAddressLeaseTime(0)}
	if l.Duration <= 0 {
		return nil, errors.New("no lease time")
	}
	if l.Server, ok = netip.AddrFromSlice(p.ServerIdentifier().To4()); !ok {
		return nil, errors.New("no server identifier")
	}
	if rs := p.Router(); len(rs) > 0 {
		if r, ok := netip.AddrFromSlice(rs[0].To4()); ok {
			l.Router = r
		}
	}
	l.DNS, l.NTP = addresses(p.DNS()), addresses(p.NTPServers())
	l.T1, l.T2 = times(l.Duration, p.IPAddressRenewalTime(0), p.IPAddressRebindingTime(0))
	return l, nil
}

func addresses(ips []net.IP) []netip.Addr {
	var out []netip.Addr
	for _, ip := range ips {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok {
			out = append(out, a)
		}
	}
	return out
}

// times fills T1 and T2 with RFC 2131's defaults where the server's are absent
// or make no sense.
func times(d, t1, t2 time.Duration) (time.Duration, time.Duration) {
	if d == infinite {
		return d, d
	}
	if t2 <= 0 || t2 >= d {
		t2 = d / 8 * 7
	}
	if t1 <= 0 || t1 >= t2 {
		t1 = min(d/2, t2)
	}
	return t1, t2
}
