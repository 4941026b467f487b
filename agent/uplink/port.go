// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"os"
	"time"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/agent/uplink/dhcp4"
	"github.com/zos-node/zos/agent/uplink/dhcp6"
	"github.com/zos-node/zos/agent/uplink/ra"
)

// port is the clients that run on one link.
type port struct {
	ctx    context.Context
	cancel context.CancelFunc
	events chan<- event
	mode6  string // of DHCPv6: "", stateless or stateful
	end6   context.CancelFunc
}

const (
	stateless = "stateless"
	stateful  = "stateful"
)

func (l *link) close() {
	if l.port != nil {
		l.port.cancel()
		l.port = nil
	}
}

// clients opens and closes the port of a link: with an uplink that works there
// is one port, without one every link that has carrier is asked at once.
func (s *session) clients(ctx context.Context, l *link) {
	other := s.up.Proven && s.links[s.current] != nil && s.links[s.current].facts.Carrier && l.Attrs().Index != s.current
	switch {
	case other:
		l.close()
		l.facts.V4, l.facts.V6, l.table = nil, nil, ra.NewTable()
	case l.port == nil && l.facts.Carrier:
		s.open(ctx, l)
	}
	if l.port != nil {
		s.dhcp6(l)
	}
}

func (s *session) open(ctx context.Context, l *link) {
	p := &port{events: s.events}
	p.ctx, p.cancel = context.WithCancel(ctx)
	l.port = p
	name, mac := l.facts.Name, l.facts.MAC
	if s.cfg.IPv4.Mode == seed.ModeDHCP {
		go s.keep(p.ctx, name, func(ctx context.Context) error {
			c := &dhcp4.Client{Clock: s.u.Clock, Log: s.u.Log, Link: name, Open: dhcp4.OpenLink(name), Moved: func() {},
				Machine: dhcp4.NewMachine(mac, s.u.Host, random, s.u.Clock.Now()),
				Apply: func(lease *dhcp4.Lease) error {
					return p.say(ctx, func(l *link) { l.facts.V4, l.v4 = lease, true })
				}}
			return c.Run(ctx)
		})
	}
	if s.cfg.IPv6.Mode != seed.ModeAuto && s.cfg.IPv6.Mode != seed.ModeDHCP {
		return
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		s.u.Log.Warn("this kernel has no IPv6", "link", name, "err", err)
		return
	}
	go s.keep(p.ctx, name, func(ctx context.Context) error {
		c := &ra.Client{Link: name, Clock: s.u.Clock, Log: s.u.Log,
			Silent: func(tries int) { s.u.Log.Debug("no router has answered", "link", name, "tries", tries) },
			Heard: func(from netip.Addr, a *ra.Advert) {
				// An error is the end of the port, which Run sees as well.
				_ = p.say(ctx, func(l *link) {
					if !l.back.IsZero() && !l.v6 {
						l.table = ra.NewTable() // the first word of what may be another network
					}
					l.v6 = true
					l.table.Add(s.u.Clock.Now(), from, a)
				})
			}}
		return c.Run(ctx)
	})
}

// dhcp6 has DHCPv6 run as the configuration or the routers want it.
func (s *session) dhcp6(l *link) {
	mode := ""
	switch v := l.facts.Routers; {
	case s.cfg.IPv6.Mode == seed.ModeDHCP, s.cfg.IPv6.Mode == seed.ModeAuto && v.Managed:
		mode = stateful
	case s.cfg.IPv6.Mode == seed.ModeAuto && v.Other:
		mode = stateless
	}
	p := l.port
	if mode == "" || mode == p.mode6 {
		return
	}
	if p.end6 != nil {
		p.end6()
	}
	var ctx context.Context
	ctx, p.end6 = context.WithCancel(p.ctx)
	p.mode6 = mode
	name, mac := l.facts.Name, l.facts.MAC
	go s.keep(ctx, name, func(ctx context.Context) error {
		c := &dhcp6.Client{Clock: s.u.Clock, Log: s.u.Log, Link: name, Machine: dhcp6.NewMachine(mac, mode == stateless, random, s.u.Clock.Now()),
			Apply: func(lease *dhcp6.Lease) error {
				return p.say(ctx, func(l *link) { l.facts.V6, l.v6 = lease, true })
			}}
		return c.Run(ctx)
	})
}

// keep runs a client again and again until ctx is over.
func (s *session) keep(ctx context.Context, name string, run func(context.Context) error) {
	for after := againFirst; ctx.Err() == nil; after = min(2*after, againLast) {
		started := s.u.Clock.Now()
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		if s.u.Clock.Now().Sub(started) > time.Minute {
			after = againFirst
		}
		s.u.Log.Warn("network client", "link", name, "err", err, "again", after)
		select {
		case <-ctx.Done():
		case <-s.u.Clock.After(after):
		}
	}
}

// say hands a change of the facts to the session's loop.
func (p *port) say(ctx context.Context, change func(*link)) error {
	select {
	case p.events <- event{p, change}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func random() uint32 {
	var b [4]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint32(b[:])
}
