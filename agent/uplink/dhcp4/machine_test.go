// SPDX-License-Identifier: Apache-2.0

package dhcp4

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// bench drives a machine by hand.
type bench struct {
	t    *testing.T
	m    *Machine
	now  time.Time
	sent *dhcpv4.DHCPv4
	to   netip.Addr
	acts []Action
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, now: time.Unix(1000, 0)}
	var n uint32
	hw := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	b.m = NewMachine(hw, "node-1", func() uint32 { n++; return n }, b.now)
	return b
}

func (b *bench) take(acts []Action, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	b.acts = acts
	for _, a := range acts {
		if a.Send != nil {
			b.sent, b.to = a.Send, a.To
		}
	}
}

// sleep goes to when the machine wants to be called, and says how long it was.
func (b *bench) sleep() time.Duration {
	b.t.Helper()
	d := b.m.Next().Sub(b.now)
	if d < 0 {
		b.t.Fatalf("next is %v ago", -d)
	}
	b.now = b.m.Next()
	b.take(b.m.Tick(b.now))
	return d
}

func (b *bench) reply(typ dhcpv4.MessageType, server byte, mods ...dhcpv4.Modifier) {
	b.t.Helper()
	ip := net.IPv4(10, 0, 2, server)
	p, err := dhcpv4.NewReplyFromRequest(b.sent, append([]dhcpv4.Modifier{dhcpv4.WithMessageType(typ),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ip))}, mods...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.take(b.m.Receive(b.now, p))
}

func grant(secs uint32) []dhcpv4.Modifier {
	return []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(10, 0, 2, 15)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithLeaseTime(secs), dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(10, 0, 2, 2))), dhcpv4.WithOption(dhcpv4.OptDNS(net.IPv4(10, 0, 2, 3)))}
}

func (b *bench) want(s State) {
	b.t.Helper()
	if b.m.State() != s {
		b.t.Fatalf("state %s, want %s", b.m.State(), s)
	}
}

func (b *bench) bound(secs uint32) *bench {
	b.t.Helper()
	b.sleep()
	b.want(Selecting)
	b.reply(dhcpv4.MessageTypeOffer, 2, grant(secs)...)
	b.want(Requesting)
	if b.sent.MessageType() != dhcpv4.MessageTypeRequest || !b.sent.RequestedIPAddress().Equal(net.IPv4(10, 0, 2, 15)) || !b.sent.ServerIdentifier().Equal(net.IPv4(10, 0, 2, 2)) {
		b.t.Fatalf("request %s", b.sent.Summary())
	}
	b.reply(dhcpv4.MessageTypeAck, 2, grant(secs)...)
	b.want(Bound)
	return b
}

func TestBound(t *testing.T) {
	b := newBench(t).bound(3600)
	l := b.acts[0].Bind
	if l == nil || l.Address != netip.MustParsePrefix("10.0.2.15/24") || l.Router != netip.MustParseAddr("10.0.2.2") || len(l.DNS) != 1 || l.T1 != 30*time.Minute || l.T2 != 3150*time.Second {
		t.Fatalf("lease %+v", l)
	}
}

func TestDiscoverIsRepeatedMoreSlowly(t *testing.T) {
	b := newBench(t)
	b.sleep()
	xid := b.sent.TransactionID
	last := time.Duration(0)
	for range 7 {
		d := b.sleep()
		if d <= last || b.sent.TransactionID != xid || b.sent.MessageType() != dhcpv4.MessageTypeDiscover {
			t.Fatalf("after %v: %v %s", last, d, b.sent.Summary())
		}
		last = d
	}
	if d := b.sleep(); d > lastRetry*11/10 {
		t.Errorf("waits %v", d)
	}
}

func TestRequestUnansweredStartsAgain(t *testing.T) {
	b := newBench(t)
	b.sleep()
	b.reply(dhcpv4.MessageTypeOffer, 2, grant(60)...)
	for range requestTries - 1 {
		b.sleep()
		b.want(Requesting)
	}
	b.sleep()
	b.want(Selecting)
}

func TestRenewal(t *testing.T) {
	b := newBench(t).bound(3600)
	if d := b.sleep(); d != 30*time.Minute {
		t.Fatalf("renews after %v", d)
	}
	b.want(Renewing)
	if b.to != netip.MustParseAddr("10.0.2.2") || !b.sent.ClientIPAddr.Equal(net.IPv4(10, 0, 2, 15)) || b.sent.ServerIdentifier() != nil {
		t.Fatalf("to %s: %s", b.to, b.sent.Summary())
	}
	b.reply(dhcpv4.MessageTypeAck, 2, grant(7200)...)
	b.want(Bound)
	if d := b.sleep(); d != time.Hour {
		t.Errorf("second renewal after %v", d)
	}
}

func TestRebindingAndExpiry(t *testing.T) {
	b := newBench(t).bound(3600)
	start := b.now
	b.sleep()
	for b.m.State() == Renewing {
		b.sleep()
	}
	b.want(Rebinding)
	if age := b.now.Sub(start); age != 3150*time.Second {
		t.Errorf("rebinds at %v", age)
	}
	if b.to.IsValid() {
		t.Errorf("asks only %s", b.to)
	}
	// Another server may answer now.
	saved := *b.m
	b.reply(dhcpv4.MessageTypeAck, 9, grant(3600)...)
	b.want(Bound)
	*b.m = saved
	for b.m.State() == Rebinding {
		b.sleep()
	}
	if age := b.now.Sub(start); age != time.Hour {
		t.Errorf("expired at %v", age)
	}
	if len(b.acts) != 2 || b.acts[0].Unbind == "" || b.acts[1].Send == nil || b.m.Lease() != nil {
		t.Errorf("at the end %+v", b.acts)
	}
	b.want(Selecting)
}

func TestNAK(t *testing.T) {
	b := newBench(t).bound(3600)
	b.sleep()
	b.reply(dhcpv4.MessageTypeNak, 2)
	b.want(Init)
	if len(b.acts) != 1 || b.acts[0].Unbind == "" {
		t.Fatalf("%+v", b.acts)
	}
	// A server that offers and then refuses is asked more and more slowly.
	var waits []time.Duration
	for range 3 {
		waits = append(waits, b.sleep())
		b.reply(dhcpv4.MessageTypeOffer, 2, grant(60)...)
		b.reply(dhcpv4.MessageTypeNak, 2)
		b.want(Init)
	}
	if waits[0] < time.Second || waits[1] <= waits[0] || waits[2] <= waits[1] {
		t.Errorf("waits %v", waits)
	}
}

func TestForeignPacketsAreIgnored(t *testing.T) {
	b := newBench(t)
	b.sleep()
	for name, mod := range map[string]dhcpv4.Modifier{
		"transaction": dhcpv4.WithTransactionID(dhcpv4.TransactionID{9}),
		"hardware":    dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 9}),
	} {
		b.reply(dhcpv4.MessageTypeOffer, 2, append(grant(60), mod)...)
		if b.m.State() != Selecting {
			t.Fatalf("took an offer of another %s", name)
		}
	}
	b.reply(dhcpv4.MessageTypeAck, 2, grant(60)...)
	b.want(Selecting)
	b.reply(dhcpv4.MessageTypeOffer, 2, grant(60)...)
	b.reply(dhcpv4.MessageTypeAck, 7, grant(60)...)
	b.want(Requesting)
}

func TestUnusableAcknowledgement(t *testing.T) {
	b := newBench(t)
	b.sleep()
	b.reply(dhcpv4.MessageTypeOffer, 2, grant(60)...)
	for name, mods := range map[string][]dhcpv4.Modifier{
		"no lease time": grant(0),
		"no address":    append(grant(60), dhcpv4.WithYourIP(net.IPv4zero)),
		"broken mask":   append(grant(60), dhcpv4.WithNetmask(net.IPv4Mask(255, 0, 255, 0))),
	} {
		p, err := dhcpv4.NewReplyFromRequest(b.sent, append([]dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeAck),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 2, 2)))}, mods...)...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.m.Receive(b.now, p); err == nil || b.m.State() != Requesting {
			t.Errorf("%s: %v, state %s", name, err, b.m.State())
		}
	}
}
