// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/zos-node/zos/agent/seed"
)

// networkFlags say one configuration of a node's uplink by flags, or several
// by files.
type networkFlags struct {
	one       seed.Network
	addresses []string
	routers   []string
	files     []string
}

const networkFile = "network"

func (n *networkFlags) add(f *pflag.FlagSet) {
	d := seed.Automatic()
	f.StringArrayVar(&n.one.Links, "link", d.Links, "network card that may be used, by hardware address or name (repeat); any when empty")
	f.StringVar(&n.one.Bond, "bond", d.Bond, "join the cards: lacp, active-backup or none")
	f.Int64Var(&n.one.VLAN, "vlan", 0, "VLAN of the uplink, 0 for untagged")
	f.StringVar(&n.one.IPv4.Mode, "ipv4", d.IPv4.Mode, "dhcp or off; static follows from --address")
	f.StringVar(&n.one.IPv6.Mode, "ipv6", d.IPv6.Mode, "auto, dhcp or off; static follows from --address")
	f.StringArrayVar(&n.addresses, "address", []string{}, "static address with prefix length, one of each family at most (repeat)")
	f.StringArrayVar(&n.routers, "gateway", []string{}, "static: router, one of each family at most (repeat)")
	f.StringArrayVar(&n.one.DNS, "dns", d.DNS, "name server in place of those that are heard of (repeat)")
	f.StringArrayVar(&n.one.NTP, "ntp", d.NTP, "time server in place of those that are heard of (repeat)")
	f.StringArrayVar(&n.files, networkFile, []string{}, "JSON file with one whole network configuration in place of the flags above (repeat, in order of preference)")
}

// networks are the configurations in order of preference.
func (n *networkFlags) networks(cmd *cobra.Command) ([]seed.Network, error) {
	if len(n.files) == 0 {
		return n.static()
	}
	for _, name := range []string{"link", "bond", "vlan", "ipv4", "ipv6", "address", "gateway", "dns", "ntp"} {
		if cmd.Flags().Changed(name) {
			return nil, coded(exitUsage, fmt.Errorf("--%s and --%s: a file holds a whole configuration", networkFile, name))
		}
	}
	var out []seed.Network
	for _, path := range n.files {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, coded(exitNotFound, fmt.Errorf("--%s: %w", networkFile, err))
		}
		c, err := seed.DecodeNetwork(b)
		if err != nil {
			example, exampleErr := json.Marshal(seed.Automatic())
			if exampleErr != nil {
				return nil, exampleErr
			}
			return nil, coded(exitRefused, fmt.Errorf("%s: %w; a whole one is %s", path, err, example))
		}
		out = append(out, *c)
	}
	return out, nil
}

func (n *networkFlags) static() ([]seed.Network, error) {
	for _, a := range n.addresses {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return nil, coded(exitUsage, fmt.Errorf("--address %q: want ADDRESS/LENGTH such as 10.0.0.1/24 or 2001:db8::1/64", a))
		}
		ip := n.family(p.Addr())
		if ip.Address != "" {
			return nil, coded(exitUsage, fmt.Errorf("--address: %s and %s are of one family", ip.Address, a))
		}
		ip.Mode, ip.Address = seed.ModeStatic, a
	}
	for _, r := range n.routers {
		a, err := netip.ParseAddr(r)
		if err != nil {
			return nil, coded(exitUsage, fmt.Errorf("--gateway %q: want an address such as 10.0.0.254 or fe80::1, without a length", r))
		}
		n.family(a).Router = r
	}
	return []seed.Network{n.one}, nil
}

func (n *networkFlags) family(a netip.Addr) *seed.IP {
	if a.Is4() {
		return &n.one.IPv4
	}
	return &n.one.IPv6
}

// describe says in a few words what the configurations are.
func describe(networks []seed.Network) string {
	var out []string
	for _, n := range networks {
		text := "IPv4 " + n.IPv4.Mode + ", IPv6 " + n.IPv6.Mode
		if n.Bond != seed.BondNone {
			text += ", " + n.Bond + " bond"
		}
		if n.VLAN != 0 {
			text += fmt.Sprintf(", VLAN %d", n.VLAN)
		}
		out = append(out, text)
	}
	return strings.Join(out, "; else ")
}

// onLink refuses a network by which none of the ledgers can ever be reached: all
// have addresses, and a static one without a router reaches only its own link.
func onLink(networks []seed.Network, ledgers []string) error {
	for _, where := range ledgers {
		u, err := url.Parse(where)
		if err != nil {
			return nil // the seed's own check says more
		}
		a, err := netip.ParseAddr(u.Hostname())
		if err != nil {
			return nil // a name
		}
		for _, n := range networks {
			ip := n.IPv4
			if !a.Is4() {
				ip = n.IPv6
			}
			p, err := netip.ParsePrefix(ip.Address)
			if ip.Mode != seed.ModeStatic && ip.Mode != seed.ModeOff || ip.Router != "" || err == nil && p.Contains(a) {
				return nil
			}
		}
	}
	return fmt.Errorf("ledger %s is not on the link of any static address, and there is no router: add --gateway, or another --ledger or --address", strings.Join(ledgers, " "))
}
