// SPDX-License-Identifier: Apache-2.0

package ra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv6"

	"github.com/zos-node/zos/agent/clock"
)

const (
	// RFC 4861 10: a solicitation every 4 s; RFC 7559: ever more slowly for as
	// long as nobody answers, so that a router that comes late is found.
	firstSolicit = 4 * time.Second
	lastSolicit  = time.Hour
	hopLimit     = 255 // what comes from another network has less
	maxPacket    = 1500
	idle         = 10 * time.Second
)

// Client hears the routers of one link.
type Client struct {
	Link   string
	Clock  clock.Clock
	Log    *slog.Logger
	Heard  func(from netip.Addr, a *Advert)
	Silent func(tries int) // another solicitation has gone out unanswered
}

// Run solicits and listens until ctx is over or the socket breaks.
func (c *Client) Run(ctx context.Context) error {
	link, err := net.InterfaceByName(c.Link)
	if err != nil {
		return fmt.Errorf("router advertisements: %w", err)
	}
	conn, err := open(link)
	if err != nil {
		return fmt.Errorf("router advertisements on %s: %w", c.Link, err)
	}
	heard := make(chan received)
	done := make(chan struct{})
	defer close(done)
	go read(conn, link.Index, heard, done)
	wait, due, answered, tries := firstSolicit, c.Clock.Now(), false, 0
	for {
		now := c.Clock.Now()
		if !answered && !now.Before(due) {
			// Before the link-local address is certain, sending fails: the
			// next try is soon.
			if err := solicit(conn, link.Index); err != nil {
				due = now.Add(time.Second)
			} else {
				if tries++; tries > 1 {
					c.Silent(tries)
				}
				due, wait = now.Add(wait), min(2*wait, lastSolicit)
				if tries < 3 {
					wait = firstSolicit
				}
			}
		}
		sleep := idle
		if !answered {
			sleep = min(idle, max(due.Sub(now), time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), conn.Close())
		case <-c.Clock.After(sleep):
		case r, ok := <-heard:
			if !ok {
				return errors.Join(fmt.Errorf("router advertisements on %s: the socket is gone", c.Link), conn.Close())
			}
			a, err := Parse(r.b)
			if err != nil {
				c.Log.Warn("router advertisement", "link", c.Link, "from", r.from, "err", err)
				continue
			}
			answered = answered || a.Lifetime > 0
			c.Heard(r.from, a)
		}
	}
}

func open(link *net.Interface) (*ipv6.PacketConn, error) {
	raw, err := net.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, err
	}
	conn := ipv6.NewPacketConn(raw)
	var only ipv6.ICMPFilter
	only.SetAll(true)
	only.Accept(ipv6.ICMPTypeRouterAdvertisement)
	err = errors.Join(conn.SetICMPFilter(&only), conn.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface|ipv6.FlagDst, true),
		conn.SetMulticastHopLimit(hopLimit), conn.SetMulticastInterface(link),
		conn.JoinGroup(link, &net.IPAddr{IP: net.IPv6linklocalallnodes}))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func solicit(conn *ipv6.PacketConn, index int) error {
	b := make([]byte, 8)
	b[0] = typeSolicit
	_, err := conn.WriteTo(b, &ipv6.ControlMessage{HopLimit: hopLimit, IfIndex: index}, &net.IPAddr{IP: net.IPv6linklocalallrouters})
	return err
}

type received struct {
	from netip.Addr
	b    []byte
}

// read passes on what came from a router of this link: RFC 4861 6.1.2.
func read(conn *ipv6.PacketConn, index int, heard chan<- received, done <-chan struct{}) {
	defer close(heard)
	b := make([]byte, maxPacket)
	for {
		n, cm, from, err := conn.ReadFrom(b)
		if err != nil {
			return // closed, or the link is gone: the closed channel says so
		}
		ip, ok := from.(*net.IPAddr)
		if !ok || cm == nil || cm.IfIndex != index || cm.HopLimit != hopLimit {
			continue
		}
		addr, ok := netip.AddrFromSlice(ip.IP)
		if !ok || !addr.IsLinkLocalUnicast() {
			continue
		}
		select {
		case heard <- received{addr, append([]byte(nil), b[:n]...)}:
		case <-done:
			return
		}
	}
}
