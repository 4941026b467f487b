// SPDX-License-Identifier: Apache-2.0

// Package uplink gives the node its way to the outside: it chooses a link,
// gets an address by DHCPv4 or from the seed, puts address, route and name
// servers in place, and keeps the lease for as long as the node lives.
package uplink

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/vishvananda/netlink"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/agent/uplink/dhcp4"
	"github.com/zos-node/zos/agent/wait"
)

// Up is the uplink as it stands; Link is "" while there is none.
type Up struct {
	Link      string
	Addresses []netip.Prefix
}

// Uplink keeps the node's way to the outside.
type Uplink struct {
	Config  seed.Network
	Host    string // name for the DHCP server
	Resolv  string // path of resolv.conf
	Clock   clock.Clock
	Log     *slog.Logger
	Changed func(Up)
	Moved   func()
}

const (
	linkEvery  = 20 * time.Millisecond
	againAfter = time.Second
	againMax   = 30 * time.Second
	checkEvery = 10 * time.Second
)

// Run works until ctx is over. Whatever goes wrong is logged and tried again:
// without an uplink the node cannot do anything else.
func (u *Uplink) Run(ctx context.Context) {
	after := againAfter
	for ctx.Err() == nil {
		started := u.Clock.Now()
		err := u.once(ctx)
		if ctx.Err() != nil {
			return
		}
		u.Log.Error("uplink", "err", err, "again", after)
		if u.Clock.Now().Sub(started) > againMax {
			after = againAfter
		}
		select {
		case <-ctx.Done():
		case <-u.Clock.After(after):
		}
		after = min(2*after, againMax)
	}
}

func (u *Uplink) once(ctx context.Context) error {
	link, err := u.choose(ctx)
	if err != nil {
		return err
	}
	name := link.Attrs().Name
	if u.Config.Mode == "static" {
		return u.static(ctx, link)
	}
	c := &dhcp4.Client{Clock: u.Clock, Log: u.Log, Link: name, Open: dhcp4.OpenLink(name), Moved: u.Moved,
		Machine: dhcp4.NewMachine(link.Attrs().HardwareAddr, u.Host, random, u.Clock.Now()),
		Apply: func(l *dhcp4.Lease) error {
			if l == nil {
				return u.lost(link)
			}
			return u.apply(link, *l)
		}}
	return c.Run(ctx)
}

func random() uint32 {
	var b [4]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint32(b[:])
}

// static puts the seed's address in place and holds it there.
func (u *Uplink) static(ctx context.Context, link netlink.Link) error {
	address, err := netip.ParsePrefix(u.Config.Address)
	if err != nil {
		return fmt.Errorf("static address: %w", err)
	}
	l := dhcp4.Lease{Address: address}
	if u.Config.Gateway != "" {
		if l.Router, err = netip.ParseAddr(u.Config.Gateway); err != nil {
			return fmt.Errorf("static gateway: %w", err)
		}
	}
	u.Log.Info("address", "link", link.Attrs().Name, "address", address, "router", u.Config.Gateway, "dns", u.Config.DNS, "server", "seed")
	if err := u.apply(link, l); err != nil {
		return err
	}
	for {
		u.Moved()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-u.Clock.After(checkEvery):
			// The link may have been taken out and put in again.
			if err := apply(link, l); err != nil {
				return err
			}
		}
	}
}

// lost takes away all that a lease gave.
func (u *Uplink) lost(link netlink.Link) error {
	u.Changed(Up{Link: link.Attrs().Name})
	return errors.Join(clearLink(link), writeResolv(u.Resolv, u.Config.DNS))
}

// apply puts a lease in place of what there is, name servers included.
func (u *Uplink) apply(link netlink.Link, l dhcp4.Lease) error {
	if err := apply(link, l); err != nil {
		return err
	}
	dns := u.Config.DNS
	if len(dns) == 0 {
		for _, d := range l.DNS {
			dns = append(dns, d.String())
		}
	}
	if err := writeResolv(u.Resolv, dns); err != nil {
		return err
	}
	u.Changed(Up{Link: link.Attrs().Name, Addresses: []netip.Prefix{l.Address}})
	return nil
}

func writeResolv(path string, dns []string) error {
	var b strings.Builder
	for _, d := range dns {
		fmt.Fprintf(&b, "nameserver %s\n", d)
	}
	if err := renameio.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("name servers: %w", err)
	}
	return nil
}

// choose waits for the link: the one with the seed's MAC, or the first with
// carrier in the kernel's order.
func (u *Uplink) choose(ctx context.Context) (netlink.Link, error) {
	var found netlink.Link
	detail := "first with carrier"
	if u.Config.MAC != "" {
		detail = u.Config.MAC
	}
	raised := map[string]bool{}
	err := wait.Until(ctx, u.Log, "a network link", detail, linkEvery, func() (bool, error) {
		u.Moved()
		links, err := netlink.LinkList()
		if err != nil {
			return false, fmt.Errorf("list links: %w", err)
		}
		for _, l := range links {
			a := l.Attrs()
			if a.EncapType != "ether" || strings.HasPrefix(a.Name, "zb") || strings.HasPrefix(a.Name, "zt") || l.Type() == "dummy" ||
				(u.Config.MAC != "" && a.HardwareAddr.String() != u.Config.MAC) {
				continue
			}
			if !raised[a.Name] { // carrier shows only on a link that is up
				if err := netlink.LinkSetUp(l); err != nil {
					return false, fmt.Errorf("set %s up: %w", a.Name, err)
				}
				raised[a.Name] = true
			}
			if a.OperState == netlink.OperUp || a.OperState == netlink.OperUnknown && a.RawFlags&lowerUp != 0 {
				found = l
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return nil, err
	}
	u.Log.Info("link", "link", found.Attrs().Name, "mac", found.Attrs().HardwareAddr.String(), "mtu", found.Attrs().MTU)
	return found, nil
}

// lowerUp is IFF_LOWER_UP: the driver sees carrier.
const lowerUp = 1 << 16
