// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/seed"
)

const (
	// lowerUp is IFF_LOWER_UP: the driver sees carrier.
	lowerUp = 1 << 16
	// bondName and vlanPrefix name the links that are made here; zb and zt are
	// those of deployments.
	bondName   = "uplink"
	vlanPrefix = "upv"
	// miimon is how often the kernel looks for carrier, in milliseconds.
	miimon = 100
)

func carrier(a *netlink.LinkAttrs) bool {
	switch a.OperState {
	case netlink.OperUp:
		return true
	case netlink.OperUnknown, netlink.OperDown:
		// The kernel brings the state up to date once a second; the driver's word
		// comes at once. A state of its own kind (dormant, say) counts as it is.
		return a.RawFlags&lowerUp != 0
	}
	return false
}

// cards are the node's network cards that the configuration allows, in its
// order; without one in the kernel's. A card in the bond may show the bond's
// address in place of its own, so being there says that it is one of them.
func cards(cfg *seed.Network, all []netlink.Link) []netlink.Link {
	master := 0
	if i := bondIn(all); i >= 0 && cfg.Bond != seed.BondNone {
		master = all[i].Attrs().Index
	}
	place := func(l netlink.Link) int {
		a := l.Attrs()
		if i := rank(cfg, a); i >= 0 || master == 0 || a.MasterIndex != master {
			return i
		}
		return len(cfg.Links)
	}
	var out []netlink.Link
	for _, l := range all {
		if l.Attrs().EncapType == "ether" && !made(l) && place(l) >= 0 {
			out = append(out, l)
		}
	}
	slices.SortStableFunc(out, func(a, b netlink.Link) int { return place(a) - place(b) })
	return out
}

func bondIn(all []netlink.Link) int {
	return slices.IndexFunc(all, func(l netlink.Link) bool { return l.Attrs().Name == bondName })
}

// made says whether a link is made by software, so no card. A veth counts as a
// card: it is one end of a cable.
func made(l netlink.Link) bool {
	name := l.Attrs().Name
	return slices.Contains([]string{"dummy", "bridge", "tuntap", "bond", "vlan", "macvlan"}, l.Type()) ||
		strings.HasPrefix(name, "zb") || strings.HasPrefix(name, "zt")
}

// rank is a card's place in the configuration, -1 when it is not in it. A card
// in a bond shows the bond's address; its own is the permanent one.
func rank(cfg *seed.Network, a *netlink.LinkAttrs) int {
	if len(cfg.Links) == 0 {
		return 0
	}
	return slices.IndexFunc(cfg.Links, func(want string) bool {
		return want == a.Name || want == a.HardwareAddr.String() && a.MasterIndex == 0 || len(a.PermHWAddr) > 0 && want == a.PermHWAddr.String()
	})
}

// raise sets a card up, with an IPv6 that hears no routers by itself: that is
// what package ra is for.
func raise(l netlink.Link) error {
	name := l.Attrs().Name
	if err := errors.Join(sysctl(name, "accept_ra", "0"), sysctl(name, "autoconf", "0")); err != nil {
		return err
	}
	if l.Attrs().Flags&unix.IFF_UP != 0 { // carrier shows only on a link that is up
		return nil
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// driversOf are those of the kernel that stack needs beside the cards' own.
func driversOf(cfg *seed.Network) (names []string) {
	if cfg.Bond != seed.BondNone {
		names = append(names, "bonding")
	}
	if cfg.VLAN != 0 {
		names = append(names, "8021q")
	}
	return names
}

// stack makes the bond and the VLANs of the configuration on its cards and
// gives the links that may be the uplink. It is called again and again: what
// is there is left alone, a card that comes late joins.
func stack(cfg *seed.Network) ([]netlink.Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	bases := cards(cfg, all)
	if cfg.Bond != seed.BondNone && len(bases) > 0 {
		b, err := bond(cfg, bases, all)
		if err != nil {
			return nil, err
		}
		bases = []netlink.Link{b}
	}
	for _, l := range bases {
		if err := raise(l); err != nil {
			return nil, err
		}
	}
	if cfg.VLAN == 0 {
		return bases, nil
	}
	var out []netlink.Link
	for _, l := range bases {
		v, err := vlan(l, int(cfg.VLAN), all)
		if err != nil {
			return nil, err
		}
		if err := raise(v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func bond(cfg *seed.Network, members, all []netlink.Link) (netlink.Link, error) {
	want := netlink.NewLinkBond(netlink.NewLinkAttrs())
	want.Name, want.Miimon = bondName, miimon
	want.Mode = netlink.BOND_MODE_ACTIVE_BACKUP
	if cfg.Bond == seed.BondLACP {
		want.Mode, want.LacpRate, want.XmitHashPolicy = netlink.BOND_MODE_802_3AD, netlink.BOND_LACP_RATE_FAST, netlink.BOND_XMIT_HASH_POLICY_LAYER3_4
		want.MinLinks = 1
	}
	// The same address whichever card is there first.
	want.HardwareAddr = members[0].Attrs().HardwareAddr
	if a := members[0].Attrs(); len(a.PermHWAddr) > 0 {
		want.HardwareAddr = a.PermHWAddr
	}
	i := bondIn(all)
	if i < 0 {
		if err := netlink.LinkAdd(want); err != nil {
			return nil, fmt.Errorf("make %s bond: %w", cfg.Bond, err)
		}
		return bondOf(members, want)
	}
	have, ok := all[i].(*netlink.Bond)
	if !ok || have.Mode != want.Mode {
		if err := netlink.LinkDel(all[i]); err != nil {
			return nil, fmt.Errorf("remove the old bond: %w", err)
		}
		return nil, errors.New("the bond is made anew") // at the next call
	}
	return bondOf(members, have)
}

func bondOf(members []netlink.Link, b netlink.Link) (netlink.Link, error) {
	b, err := netlink.LinkByName(b.Attrs().Name)
	if err != nil {
		return nil, fmt.Errorf("bond: %w", err)
	}
	for _, l := range members {
		if l.Attrs().MasterIndex == b.Attrs().Index {
			continue
		}
		// A card joins while it is down, and without addresses of its own.
		err := errors.Join(clearLink(l), netlink.LinkSetDown(l))
		if err == nil {
			err = netlink.LinkSetMaster(l, b)
		}
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			return nil, fmt.Errorf("join %s to the bond: %w", l.Attrs().Name, err)
		}
	}
	return b, nil
}

func vlan(base netlink.Link, id int, all []netlink.Link) (netlink.Link, error) {
	for _, l := range all {
		if v, ok := l.(*netlink.Vlan); ok && v.VlanId == id && v.ParentIndex == base.Attrs().Index {
			return v, nil
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = fmt.Sprintf("%s%d.%d", vlanPrefix, base.Attrs().Index, id), base.Attrs().Index
	if err := netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: id, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}); err != nil {
		return nil, fmt.Errorf("make VLAN %d on %s: %w", id, base.Attrs().Name, err)
	}
	l, err := netlink.LinkByName(attrs.Name)
	if err != nil {
		return nil, fmt.Errorf("VLAN %d: %w", id, err)
	}
	return l, nil
}

// unstack takes away what an earlier configuration made and this one does not
// want, so that its cards are free.
func unstack(cfg *seed.Network) error {
	all, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range all {
		v, isVLAN := l.(*netlink.Vlan)
		foreign := isVLAN && strings.HasPrefix(v.Name, vlanPrefix) && int64(v.VlanId) != cfg.VLAN
		if foreign || l.Attrs().Name == bondName && cfg.Bond == seed.BondNone {
			if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, fmt.Errorf("remove %s: %w", l.Attrs().Name, err))
			}
		}
	}
	return errors.Join(errs...)
}
