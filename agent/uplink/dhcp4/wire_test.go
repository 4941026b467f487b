// SPDX-License-Identifier: Apache-2.0

package dhcp4

import (
	"context"
	"log/slog"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"

	"github.com/zos-node/zos/agent/clock/clocktest"
	"github.com/zos-node/zos/agent/uplink/nstest"
)

// TestTimersOnTheWire walks a lease through all of its times with a clock of
// the test's own and packets of the kernel's: DISCOVER to all, renewal to the
// server alone at T1, to all at T2, and the end.
func TestTimersOnTheWire(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	const seconds = 3600
	outside := nstest.Outside(t)
	outside.Cable("up0", "02:00:00:00:00:01", "srv0")
	outside.IP("address", "add", "10.0.2.2/24", "dev", "srv0")
	nstest.IP(t, "link", "set", "up0", "up")
	type heard struct {
		p    *dhcpv4.DHCPv4
		peer net.IP
	}
	requests := make(chan heard, 100)
	answers := make(chan bool, 100) // one for each packet that is answered
	var server *server4.Server
	outside.Do(func() (err error) {
		server, err = server4.NewServer("srv0", &net.UDPAddr{Port: dhcpv4.ServerPort}, func(conn net.PacketConn, peer net.Addr, p *dhcpv4.DHCPv4) {
			requests <- heard{p, peer.(*net.UDPAddr).IP}
			select {
			case <-answers:
			default:
				return
			}
			typ := dhcpv4.MessageTypeAck
			if p.MessageType() == dhcpv4.MessageTypeDiscover {
				typ = dhcpv4.MessageTypeOffer
			}
			r, err := dhcpv4.NewReplyFromRequest(p, append(grant(seconds), dhcpv4.WithMessageType(typ),
				dhcpv4.WithOption(dhcpv4.OptNTPServers(net.IPv4(10, 0, 2, 4))), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 2, 2))))...)
			if err == nil {
				_, err = conn.WriteTo(r.ToBytes(), peer)
			}
			if err != nil {
				t.Error(err)
			}
		})
		return err
	})
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	link, err := netlink.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	clk := clocktest.New(time.Unix(1_000_000, 0))
	applied := make(chan *Lease, 10)
	c := &Client{Clock: clk, Log: slog.New(slog.DiscardHandler), Link: "up0", Moved: func() {}, Open: OpenLink("up0"),
		Machine: NewMachine(link.Attrs().HardwareAddr, "n", func() uint32 { return uint32(time.Now().UnixNano()) }, clk.Now()),
		Apply: func(l *Lease) error {
			if l != nil {
				a := &netlink.Addr{IPNet: &net.IPNet{IP: l.Address.Addr().AsSlice(), Mask: net.CIDRMask(l.Address.Bits(), bits32)}}
				if err := netlink.AddrReplace(link, a); err != nil {
					return err
				}
			}
			applied <- l
			return nil
		}}
	answers <- true // a packet that finds none here is not answered
	answers <- true
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	lease := func() *Lease {
		t.Helper()
		select {
		case l := <-applied:
			return l
		case err := <-ended:
			ended <- err
			t.Fatal(err)
		case <-time.After(time.Minute):
			t.Fatal("no lease")
		}
		return nil
	}
	// next moves the clock until the client sends, and says when that was.
	next := func(limit time.Duration) (heard, time.Duration) {
		t.Helper()
		start := clk.Now()
		for real := time.Now(); time.Since(real) < time.Minute; runtime.Gosched() {
			select {
			case h := <-requests:
				return h, clk.Now().Sub(start)
			case <-time.After(5 * time.Millisecond):
				if clk.Now().Sub(start) < limit {
					clk.Advance(idle)
				}
			}
		}
		t.Fatal("nothing was sent")
		return heard{}, 0
	}
	// A loaded machine may let the packet come some steps late; never early.
	about := func(what string, got, want time.Duration) {
		t.Helper()
		if got < want || got > want+20*idle {
			t.Errorf("%s after %v, want %v", what, got, want)
		}
	}
	for range 5 { // what is lost on a link that is just coming up is sent again
		for real := time.Now(); len(applied) == 0 && time.Since(real) < 10*time.Second; {
			time.Sleep(5 * time.Millisecond)
		}
		if len(applied) > 0 {
			break
		}
		clk.Advance(idle)
		answers <- true
		answers <- true
	}
	for len(answers) > 0 {
		<-answers
	}
	if l := lease(); len(l.NTP) != 1 || l.T1 != seconds/2*time.Second {
		t.Fatalf("lease %+v", l)
	}
	for range max(2, len(requests)) { // discover, request
		if h := <-requests; !h.peer.Equal(net.IPv4bcast) { // server4's name for 0.0.0.0
			t.Errorf("%s from %s", h.p.MessageType(), h.peer)
		}
	}
	answers <- true
	h, after := next(time.Hour)
	about("renewal", after, seconds/2*time.Second)
	if !h.peer.Equal(net.IPv4(10, 0, 2, 15)) || !h.p.ClientIPAddr.Equal(net.IPv4(10, 0, 2, 15)) || h.p.ServerIdentifier() != nil || h.p.IsBroadcast() {
		t.Errorf("renewal from %s: %s", h.peer, h.p.Summary())
	}
	start := lease().Start
	// The server falls silent: T1 again, tries between, T2, the end.
	var times []time.Duration
	for len(applied) == 0 {
		_, _ = next(time.Hour)
		times = append(times, clk.Now().Sub(start))
	}
	about("first try", times[0], seconds/2*time.Second)
	rebinding := time.Duration(0)
	for _, x := range times {
		if x >= seconds/8*7*time.Second && rebinding == 0 {
			rebinding = x
		}
	}
	about("rebinding", rebinding, seconds/8*7*time.Second)
	if l := lease(); l != nil {
		t.Fatalf("lease %+v", l)
	}
	about("the end", clk.Now().Sub(start), seconds*time.Second)
}
