// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/clock/clocktest"
	"github.com/zos-node/zos/agent/seed"
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
	w := &wireConn{make(chan *dhcpv4.DHCPv4), make(chan *dhcpv4.DHCPv4), make(chan bool, 10)}
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
	renewal := make(chan *dhcpv4.DHCPv4)
	go func() { renewal <- <-w.sent }()
	var p *dhcpv4.DHCPv4
	for p == nil {
		clk.Advance(idle)
		select {
		case p = <-renewal:
		default:
			runtime.Gosched()
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

// TestRealLink runs client and server on two ends of a veth, in namespaces.
func TestRealLink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP TestRealLink: needs root for network namespaces")
	}
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	got := make(chan Up, 10)
	requests := make(chan *dhcpv4.DHCPv4, 100)
	errs := make(chan error, 1)
	go func() {
		// All of it on one thread that is thrown away with its namespace.
		runtime.LockOSThread()
		errs <- realLink(ctx, t, resolv, got, requests)
	}()
	ups := 0
	var renewed bool
	for ups < 1 || !renewed {
		select {
		case err := <-errs:
			t.Fatalf("ended early: %v", err)
		case <-ctx.Done():
			t.Fatalf("%d addresses, renewed %v", ups, renewed)
		case up := <-got:
			if up.Link != "up0" || len(up.Addresses) != 1 || up.Addresses[0] != netip.MustParsePrefix("10.0.2.15/24") {
				t.Fatalf("up %+v", up)
			}
			ups++
		case p := <-requests:
			if p.MessageType() == dhcpv4.MessageTypeRequest && p.ClientIPAddr.Equal(net.IPv4(10, 0, 2, 15)) {
				renewed = true
			}
		}
	}
	b, err := os.ReadFile(resolv)
	if err != nil || string(b) != "nameserver 10.0.2.3\n" {
		t.Errorf("resolv.conf %q %v", b, err)
	}
	cancel()
	if err := <-errs; err != nil {
		t.Error(err)
	}
}

func realLink(ctx context.Context, t *testing.T, resolv string, got chan<- Up, requests chan<- *dhcpv4.DHCPv4) error {
	server, err := netns.New()
	if err != nil {
		return err
	}
	defer closing(t, &server)
	client, err := netns.New()
	if err != nil {
		return err
	}
	defer closing(t, &client)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "srv0", PeerNamespace: netlink.NsFd(server)}); err != nil {
		return err
	}
	if err := netns.Set(server); err != nil {
		return err
	}
	srv, err := netlink.LinkByName("srv0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr("10.0.2.2/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(srv, addr); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(srv); err != nil {
		return err
	}
	s, err := server4.NewServer("srv0", &net.UDPAddr{Port: dhcpv4.ServerPort}, func(conn net.PacketConn, peer net.Addr, p *dhcpv4.DHCPv4) {
		requests <- p
		typ := dhcpv4.MessageTypeAck
		if p.MessageType() == dhcpv4.MessageTypeDiscover {
			typ = dhcpv4.MessageTypeOffer
		}
		// Two seconds: the renewal comes after one.
		r, err := dhcpv4.NewReplyFromRequest(p, append(grant(2), dhcpv4.WithMessageType(typ), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 2, 2))))...)
		if err != nil {
			t.Error(err)
			return
		}
		if peer.(*net.UDPAddr).IP.IsUnspecified() {
			peer = &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort}
		}
		if _, err := conn.WriteTo(r.ToBytes(), peer); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	defer func() {
		closing(t, s)
		<-served // ends with the socket
	}()
	if err := netns.Set(client); err != nil {
		return err
	}
	u := &Uplink{Config: seed.Network{Mode: "dhcp"}, Host: "n", Resolv: resolv, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler),
		Changed: func(up Up) { got <- up }, Moved: func() {}}
	u.Run(ctx)
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Gw.Equal(net.IPv4(10, 0, 2, 2)) {
			return nil
		}
	}
	return fmt.Errorf("no default route: %v", routes)
}

func closing(t *testing.T, c io.Closer) {
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestStaticAddress(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP TestStaticAddress: needs root for network namespaces")
	}
	dir := t.TempDir()
	errs := make(chan error)
	go func() {
		runtime.LockOSThread()
		errs <- func() error {
			ns, err := netns.New()
			if err != nil {
				return err
			}
			defer closing(t, &ns)
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "up0"
			attrs.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, 0, 7}
			if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "x"}); err != nil {
				return err
			}
			peer, err := netlink.LinkByName("x")
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(peer); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			up := Up{}
			u := &Uplink{Config: seed.Network{Mode: "static", MAC: "02:00:00:00:00:07", Address: "192.0.2.7/24", Gateway: "192.0.2.1", DNS: []string{"192.0.2.3"}},
				Resolv: filepath.Join(dir, "resolv.conf"), Clock: clock.System{}, Log: slog.New(slog.DiscardHandler),
				Changed: func(v Up) { up = v; cancel() }, Moved: func() {}}
			u.Run(ctx)
			if up.Link != "up0" || len(up.Addresses) != 1 {
				return fmt.Errorf("up %+v", up)
			}
			return nil
		}()
	}()
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
}
