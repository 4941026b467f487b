// SPDX-License-Identifier: Apache-2.0

package dhcp4

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/wait"
)

// Conn carries DHCP packets on one link.
type Conn interface {
	// Send sends to a server, or to all when to is zero.
	Send(p *dhcpv4.DHCPv4, to netip.Addr) error
	// Packets is closed when the connection cannot receive any more.
	Packets() <-chan *dhcpv4.DHCPv4
	Close() error
}

// Open opens a Conn on the client's link; configured says that the link has
// an address, so that the kernel's own UDP can be used.
type Open func(configured bool) (Conn, error)

// Client drives a Machine on a link.
type Client struct {
	Machine *Machine
	Clock   clock.Clock
	Open    Open
	Apply   func(*Lease) error // nil lease: take away what there is
	Log     *slog.Logger
	Link    string
	Moved   func() // called whenever the loop has moved
}

// idle bounds the sleep of the loop, so that its progress can be seen.
const idle = 10 * time.Second

// Run keeps a lease until ctx is over or the link cannot be used any more.
func (c *Client) Run(ctx context.Context) error {
	var conn Conn
	var kind State
	closeConn := func() error {
		if conn == nil {
			return nil
		}
		err := conn.Close()
		conn = nil
		return err
	}
	line := wait.Start(c.Log, c.Clock.Now(), "an address", "DHCP on "+c.Link)
	for {
		c.Moved()
		now := c.Clock.Now()
		actions, err := c.Machine.Tick(now)
		if err != nil {
			return errors.Join(err, closeConn())
		}
		if want := transport(c.Machine.State()); conn == nil && want != "" || conn != nil && want != kind {
			if err := closeConn(); err != nil {
				return err
			}
			if want != "" {
				if conn, err = c.Open(want == Bound); err != nil {
					return fmt.Errorf("DHCP on %s: %w", c.Link, err)
				}
			}
			kind = want
		}
		if err := c.do(conn, actions); err != nil {
			return errors.Join(err, closeConn())
		}
		if c.Machine.Lease() == nil {
			line.Tick(now)
		} else {
			line = wait.Start(c.Log, now, "an address", "DHCP on "+c.Link)
		}
		var packets <-chan *dhcpv4.DHCPv4
		if conn != nil {
			packets = conn.Packets()
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), closeConn())
		case <-c.Clock.After(min(max(c.Machine.Next().Sub(now), 0), idle)):
		case p, ok := <-packets:
			if !ok {
				return errors.Join(fmt.Errorf("DHCP on %s: the socket is gone", c.Link), closeConn())
			}
			actions, err := c.Machine.Receive(c.Clock.Now(), p)
			if err != nil {
				c.Log.Warn("unusable DHCP packet", "link", c.Link, "err", err)
			}
			if err := c.do(conn, actions); err != nil {
				return errors.Join(err, closeConn())
			}
		}
	}
}

// transport tells which connection a state needs: Init for a raw one, Bound
// for UDP, "" for none. A raw socket sees every packet of the link, so it is
// closed while it is not needed.
func transport(s State) State {
	switch s {
	case Bound:
		return ""
	case Renewing, Rebinding:
		return Bound
	}
	return Init
}

func (c *Client) do(conn Conn, actions []Action) error {
	for _, a := range actions {
		switch {
		case a.Unbind != "":
			c.Log.Warn("address lost", "link", c.Link, "err", a.Unbind)
			if err := c.Apply(nil); err != nil {
				return err
			}
		case a.Bind != nil:
			c.Log.Info("address", "link", c.Link, "address", a.Bind.Address, "router", a.Bind.Router, "dns", a.Bind.DNS, "server", a.Bind.Server, "lease", a.Bind.Duration)
			if err := c.Apply(a.Bind); err != nil {
				return err
			}
		case a.Send != nil:
			if err := conn.Send(a.Send, a.To); err != nil {
				// The machine tries again by itself: a full queue or a cable
				// that is out for a moment is no reason to give up the lease.
				c.Log.Warn("DHCP packet not sent", "link", c.Link, "state", c.Machine.State(), "err", err)
			}
		}
	}
	return nil
}
