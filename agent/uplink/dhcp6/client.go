// SPDX-License-Identifier: Apache-2.0

package dhcp6

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/wait"
)

const (
	idle      = 10 * time.Second
	maxPacket = 1500
)

// Client drives a Machine on a link. It sends from the link-local address, so
// the kernel's UDP serves in all states.
type Client struct {
	Machine *Machine
	Clock   clock.Clock
	Apply   func(*Lease) error // nil lease: take away what there is
	Log     *slog.Logger
	Link    string
}

// Run keeps a lease until ctx is over or the link cannot be used any more.
func (c *Client) Run(ctx context.Context) error {
	link, err := net.InterfaceByName(c.Link)
	if err != nil {
		return fmt.Errorf("DHCPv6: %w", err)
	}
	conn, err := open(ctx, c.Link)
	if err != nil {
		return fmt.Errorf("DHCPv6 on %s: %w", c.Link, err)
	}
	to := &net.UDPAddr{IP: dhcpv6.AllDHCPRelayAgentsAndServers, Port: dhcpv6.DefaultServerPort, Zone: link.Name}
	messages, done := make(chan *dhcpv6.Message), make(chan struct{})
	defer close(done)
	go read(conn, messages, done)
	line := wait.Start(c.Log, c.Clock.Now(), "an address", "DHCPv6 on "+c.Link)
	do := func(actions []Action) error {
		for _, a := range actions {
			switch {
			case a.Unbind != "":
				c.Log.Warn("address lost", "link", c.Link, "err", a.Unbind)
				if err := c.Apply(nil); err != nil {
					return err
				}
			case a.Bind != nil:
				c.Log.Info("DHCPv6", "link", c.Link, "address", a.Bind.Address, "dns", a.Bind.DNS, "server", a.Bind.Server, "lease", a.Bind.Valid)
				if err := c.Apply(a.Bind); err != nil {
					return err
				}
			case a.Send != nil:
				if _, err := conn.WriteTo(a.Send.ToBytes(), to); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
					// The machine tries again by itself. EADDRNOTAVAIL: the
					// link-local address is not certain yet.
					c.Log.Warn("DHCPv6 message not sent", "link", c.Link, "state", c.Machine.State(), "err", err)
				}
			}
		}
		return nil
	}
	for {
		now := c.Clock.Now()
		actions, err := c.Machine.Tick(now)
		if err := errors.Join(err, do(actions)); err != nil {
			return errors.Join(err, conn.Close())
		}
		if c.Machine.Lease() == nil {
			line.Tick(now)
		} else {
			line = wait.Start(c.Log, now, "an address", "DHCPv6 on "+c.Link)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), conn.Close())
		case <-c.Clock.After(min(max(c.Machine.Next().Sub(now), 0), idle)):
		case p, ok := <-messages:
			if !ok {
				return errors.Join(fmt.Errorf("DHCPv6 on %s: the socket is gone", c.Link), conn.Close())
			}
			actions, err := c.Machine.Receive(c.Clock.Now(), p)
			if err != nil {
				c.Log.Warn("unusable DHCPv6 message", "link", c.Link, "err", err)
			}
			if err := do(actions); err != nil {
				return errors.Join(err, conn.Close())
			}
		}
	}
}

// open binds to the link before the port, so that each link has a socket.
func open(ctx context.Context, link string) (net.PacketConn, error) {
	cfg := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if cerr := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), link) }); cerr != nil {
			return cerr
		}
		return err
	}}
	return cfg.ListenPacket(ctx, "udp6", fmt.Sprintf("[::]:%d", dhcpv6.DefaultClientPort))
}

func read(conn net.PacketConn, messages chan<- *dhcpv6.Message, done <-chan struct{}) {
	defer close(messages)
	b := make([]byte, maxPacket)
	for {
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			return // closed, or the link is gone: the closed channel says so
		}
		p, err := dhcpv6.MessageFromBytes(b[:n])
		if err != nil {
			continue // anybody may send nonsense to this port
		}
		select {
		case messages <- p:
		case <-done:
			return
		}
	}
}
