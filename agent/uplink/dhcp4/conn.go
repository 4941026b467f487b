// SPDX-License-Identifier: Apache-2.0

package dhcp4

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
)

const maxPacket = 1500

// packetConn is a Conn on a real link.
type packetConn struct {
	net.PacketConn
	packets chan *dhcpv4.DHCPv4
	done    chan struct{}
}

// OpenLink opens DHCP on a link: raw frames while it has no address, the
// kernel's UDP afterwards.
func OpenLink(name string) Open {
	return func(configured bool) (Conn, error) {
		var pc net.PacketConn
		var err error
		if configured {
			pc, err = server4.NewIPv4UDPConn(name, &net.UDPAddr{IP: net.IPv4zero, Port: dhcpv4.ClientPort})
		} else {
			pc, err = nclient4.NewRawUDPConn(name, dhcpv4.ClientPort)
		}
		if err != nil {
			return nil, fmt.Errorf("open DHCP socket: %w", err)
		}
		c := &packetConn{PacketConn: pc, packets: make(chan *dhcpv4.DHCPv4), done: make(chan struct{})}
		go c.read()
		return c, nil
	}
}

func (c *packetConn) read() {
	defer close(c.packets)
	b := make([]byte, maxPacket)
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return // closed, or the link is gone: the closed channel says so
		}
		p, err := dhcpv4.FromBytes(b[:n])
		if err != nil {
			continue // anybody may send nonsense to this port
		}
		select {
		case c.packets <- p:
		case <-c.done:
			return
		}
	}
}

func (c *packetConn) Packets() <-chan *dhcpv4.DHCPv4 { return c.packets }

func (c *packetConn) Send(p *dhcpv4.DHCPv4, to netip.Addr) error {
	addr := &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ServerPort}
	if to.IsValid() {
		addr.IP = to.AsSlice()
	}
	if _, err := c.WriteTo(p.ToBytes(), addr); err != nil {
		return fmt.Errorf("send %s: %w", p.MessageType(), err)
	}
	return nil
}

func (c *packetConn) Close() error {
	close(c.done)
	return c.PacketConn.Close()
}
