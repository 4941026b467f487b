// SPDX-License-Identifier: Apache-2.0

package dhcp4

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/zos-node/zos/agent/clock/clocktest"
)

// wireConn is a Conn whose other end is the test.
type wireConn struct {
	sent    chan *dhcpv4.DHCPv4
	packets chan *dhcpv4.DHCPv4
	opened  chan bool
}

func (w *wireConn) Send(p *dhcpv4.DHCPv4, _ netip.Addr) error { w.sent <- p; return nil }
func (w *wireConn) Packets() <-chan *dhcpv4.DHCPv4            { return w.packets }
func (w *wireConn) Close() error                              { return nil }

func TestClientRenewsByFakeClock(t *testing.T) {
	clk := clocktest.New(time.Unix(0, 0))
	// Room on both ways: the client must never wait for the test while the test
	// waits for it.
	w := &wireConn{make(chan *dhcpv4.DHCPv4, 64), make(chan *dhcpv4.DHCPv4, 64), make(chan bool, 10)}
	applied := make(chan *Lease, 10)
	var n uint32
	c := &Client{Clock: clk, Log: slog.New(slog.DiscardHandler), Link: "eth0", Moved: func() {},
		Machine: NewMachine(net.HardwareAddr{2, 0, 0, 0, 0, 1}, "n", func() uint32 { n++; return n }, clk.Now()),
		Open:    func(configured bool) (Conn, error) { w.opened <- configured; return w, nil },
		Apply:   func(l *Lease) error { applied <- l; return nil }}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	answer := func(p *dhcpv4.DHCPv4, typ dhcpv4.MessageType) {
		r, err := dhcpv4.NewReplyFromRequest(p, append(grant(600), dhcpv4.WithMessageType(typ), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 2, 2))))...)
		if err != nil {
			t.Fatal(err)
		}
		w.packets <- r
	}
	answer(<-w.sent, dhcpv4.MessageTypeOffer)
	answer(<-w.sent, dhcpv4.MessageTypeAck)
	if l := <-applied; l == nil || <-w.opened {
		t.Fatal("first lease without a raw socket")
	}
	// The loop wakes every idle seconds; walk it to T1.
	var p *dhcpv4.DHCPv4
	for p == nil {
		clk.Await(1) // it sleeps: what it had to say is said
		select {
		case p = <-w.sent:
		default:
			clk.Advance(idle)
		}
	}
	if clk.Now().Unix() < 300 {
		t.Errorf("renewed after %v", clk.Now().Unix())
	}
	answer(p, dhcpv4.MessageTypeAck)
	if l := <-applied; l == nil || !<-w.opened {
		t.Fatal("renewal did not use UDP")
	}
	cancel()
	<-done
}
