// SPDX-License-Identifier: Apache-2.0

package dhcp6

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// bench drives a machine by hand.
type bench struct {
	t    testing.TB
	m    *Machine
	now  time.Time
	sent *dhcpv6.Message
	acts []Action
}

func newBench(t testing.TB, stateless bool) *bench {
	b := &bench{t: t, now: time.Unix(1000, 0)}
	var n uint32
	b.m = NewMachine(net.HardwareAddr{2, 0, 0, 0, 0, 1}, stateless, func() uint32 { n++; return n << 8 }, b.now)
	b.take(b.m.Tick(b.now))
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
			b.sent = a.Send
		}
	}
}

// sleep goes to when the machine wants to be called.
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

func server(n byte) dhcpv6.DUID {
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 1, n}}
}

// answer makes a server's message to what was sent last.
func (b *bench) answer(typ dhcpv6.MessageType, from byte, mods ...dhcpv6.Modifier) *dhcpv6.Message {
	b.t.Helper()
	p, err := dhcpv6.NewMessage()
	if err != nil {
		b.t.Fatal(err)
	}
	p.MessageType, p.TransactionID = typ, b.sent.TransactionID
	p.AddOption(dhcpv6.OptClientID(b.sent.Options.ClientID()))
	p.AddOption(dhcpv6.OptServerID(server(from)))
	for _, m := range mods {
		m(p)
	}
	return p
}

func grant(addr string, preferred, valid time.Duration) dhcpv6.Modifier {
	return dhcpv6.WithOption(&dhcpv6.OptIANA{IaId: [4]byte{0, 0, 0, 1}, Options: dhcpv6.IdentityOptions{Options: []dhcpv6.Option{
		&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(addr), PreferredLifetime: preferred, ValidLifetime: valid}}}})
}

func (b *bench) reply(typ dhcpv6.MessageType, from byte, mods ...dhcpv6.Modifier) {
	b.t.Helper()
	b.take(b.m.Receive(b.now, b.answer(typ, from, mods...)))
}

func (b *bench) want(s State) {
	b.t.Helper()
	if b.m.State() != s {
		b.t.Fatalf("state %s, want %s", b.m.State(), s)
	}
}

func (b *bench) bound() *bench {
	b.t.Helper()
	good := grant("2001:db8::7", time.Hour, 2*time.Hour)
	b.reply(dhcpv6.MessageTypeAdvertise, 1, good)
	b.want(Soliciting) // a better server may answer within the first second
	b.sleep()
	b.want(Requesting)
	if !b.sent.Options.ServerID().Equal(server(1)) {
		b.t.Fatal(b.sent.Summary())
	}
	b.reply(dhcpv6.MessageTypeReply, 1, good, dhcpv6.WithDNS(net.ParseIP("2001:db8::53")), dhcpv6.WithDomainSearchList("example.com"))
	b.want(Bound)
	return b
}

func TestBound(t *testing.T) {
	l := newBench(t, false).bound().acts[0].Bind
	if l == nil || l.Address != netip.MustParseAddr("2001:db8::7") || l.T1 != 30*time.Minute || l.T2 != 48*time.Minute || len(l.DNS) != 1 || len(l.Search) != 1 {
		t.Fatalf("%+v", l)
	}
}

func TestBestServer(t *testing.T) {
	b := newBench(t, false)
	b.reply(dhcpv6.MessageTypeAdvertise, 1, grant("2001:db8::7", time.Hour, time.Hour), dhcpv6.WithPreference(3))
	b.reply(dhcpv6.MessageTypeAdvertise, 2, grant("2001:db8::8", time.Hour, time.Hour), dhcpv6.WithPreference(2))
	b.want(Soliciting)
	b.reply(dhcpv6.MessageTypeAdvertise, 3, grant("2001:db8::9", time.Hour, time.Hour), dhcpv6.WithPreference(255))
	b.want(Requesting)
	if !b.sent.Options.ServerID().Equal(server(3)) {
		t.Fatal(b.sent.Summary())
	}
	b.reply(dhcpv6.MessageTypeReply, 1, grant("2001:db8::7", time.Hour, time.Hour))
	b.want(Requesting) // another server's
	for b.m.State() == Requesting {
		b.sleep()
	}
	b.want(Soliciting)
}

func TestTimers(t *testing.T) {
	b := newBench(t, false).bound()
	if d := b.sleep(); d != 30*time.Minute || b.sent.MessageType != dhcpv6.MessageTypeRenew || !b.sent.Options.ServerID().Equal(server(1)) {
		t.Fatalf("after %v %s", d, b.sent.Summary())
	}
	b.reply(dhcpv6.MessageTypeReply, 1, grant("2001:db8::7", time.Hour, 2*time.Hour))
	b.want(Bound)
	start := b.now
	b.sleep()
	for b.m.State() == Renewing {
		b.sleep()
	}
	if age := b.now.Sub(start); age != 48*time.Minute || b.sent.MessageType != dhcpv6.MessageTypeRebind || b.sent.Options.ServerID() != nil {
		t.Fatalf("at %v %s", age, b.sent.Summary())
	}
	saved := *b.m
	b.reply(dhcpv6.MessageTypeReply, 9, grant("2001:db8::7", time.Hour, 2*time.Hour)) // another server takes over
	b.want(Bound)
	*b.m = saved
	for b.m.State() == Rebinding {
		b.sleep()
	}
	if age := b.now.Sub(start); age != 2*time.Hour || b.acts[0].Unbind == "" || b.m.Lease() != nil {
		t.Fatalf("at %v %+v", age, b.acts)
	}
	b.want(Soliciting)
}

func TestNoBinding(t *testing.T) {
	b := newBench(t, false).bound()
	b.sleep()
	b.reply(dhcpv6.MessageTypeReply, 1, dhcpv6.WithOption(&dhcpv6.OptIANA{IaId: [4]byte{0, 0, 0, 1}, Options: dhcpv6.IdentityOptions{Options: []dhcpv6.Option{
		&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoBinding}}}}))
	if b.acts[0].Unbind == "" || b.m.Lease() != nil {
		t.Fatalf("%+v", b.acts)
	}
	b.want(Soliciting)
}

func TestStateless(t *testing.T) {
	b := newBench(t, true)
	if b.sent.MessageType != dhcpv6.MessageTypeInformationRequest || b.sent.Options.OneIANA() != nil {
		t.Fatal(b.sent.Summary())
	}
	b.reply(dhcpv6.MessageTypeReply, 1, dhcpv6.WithDNS(net.ParseIP("2001:db8::53")), dhcpv6.WithInformationRefreshTime(time.Hour))
	if l := b.acts[0].Bind; l == nil || l.Address.IsValid() || len(l.DNS) != 1 {
		t.Fatalf("%+v", l)
	}
	if d := b.sleep(); d != time.Hour {
		t.Errorf("asks again after %v", d)
	}
	b.want(Asking)
}

func TestUnusable(t *testing.T) {
	for name, mods := range map[string][]dhcpv6.Modifier{
		"no address":         nil,
		"a v4 address":       {grant("10.0.0.1", time.Hour, time.Hour)},
		"a multicast one":    {grant("ff02::1", time.Hour, time.Hour)},
		"a link-local one":   {grant("fe80::1", time.Hour, time.Hour)},
		"no life":            {grant("2001:db8::1", 0, 0)},
		"preferred is more":  {grant("2001:db8::1", 2*time.Hour, time.Hour)},
		"another's identity": {grant("2001:db8::1", time.Hour, time.Hour), dhcpv6.WithIAID([4]byte{9})},
		"a refusal":          {grant("2001:db8::1", time.Hour, time.Hour), dhcpv6.WithOption(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoAddrsAvail})},
	} {
		b := newBench(t, false)
		if acts, err := b.m.Receive(b.now, b.answer(dhcpv6.MessageTypeAdvertise, 1, mods...)); err == nil || b.m.best != nil {
			t.Errorf("%s: %+v %v", name, acts, err)
		}
	}
	b := newBench(t, false)
	p := b.answer(dhcpv6.MessageTypeAdvertise, 1, grant("2001:db8::1", time.Hour, time.Hour))
	p.TransactionID[0]++
	b.take(b.m.Receive(b.now, p))
	if b.m.best != nil {
		t.Error("took another's transaction")
	}
}

func FuzzReceive(f *testing.F) {
	b := newBench(f, false)
	f.Add(b.answer(dhcpv6.MessageTypeAdvertise, 1, grant("2001:db8::7", time.Hour, time.Hour), dhcpv6.WithPreference(255)).ToBytes(), byte(0))
	f.Add(b.answer(dhcpv6.MessageTypeReply, 1, grant("2001:db8::7", time.Hour, time.Hour)).ToBytes(), byte(2))
	f.Fuzz(func(t *testing.T, raw []byte, steps byte) {
		p, err := dhcpv6.MessageFromBytes(raw)
		if err != nil {
			return
		}
		b := newBench(t, steps&0x80 != 0)
		if steps&1 != 0 && steps&0x80 == 0 {
			b.bound()
		}
		for range steps >> 1 & 7 {
			b.sleep()
		}
		p.TransactionID = b.m.xid
		acts, _ := b.m.Receive(b.now, p) // an error is an answer
		for _, a := range acts {
			if a.Bind != nil && a.Bind.Address.IsValid() && (!a.Bind.Address.IsGlobalUnicast() || a.Bind.Valid <= 0) {
				t.Fatalf("%+v", a.Bind)
			}
		}
		for range 3 {
			b.sleep()
		}
	})
}
