// SPDX-License-Identifier: Apache-2.0

// Package network joins the machines of a deployment, and keeps everything
// else apart: one bridge per network of a deployment, one tap per interface,
// and packet filter rules under which nothing passes that a plan does not
// name.
//
// Rules is a pure function from the plans of all deployments on the node to
// a description of two nftables tables, "inet zos" (forwarding, access to the
// node, address translation) and "bridge zos" (what a tap may send at all).
// Apply puts that description into the kernel in one transaction, replacing
// what was there: the same call sets up, adopts after a restart, and takes
// away. Links does the same for bridges and taps.
//
// Guests reach the node at no port: what comes from a bridge and is for the
// node is dropped before connection tracking is even asked.
package network

import (
	"fmt"
	"net/netip"
)

// Plan is the network of one deployment on this node.
type Plan struct {
	Networks []Network `json:"networks"`
	Gateways []Gateway `json:"gateways"`
}

// Network is one bridge.
type Network struct {
	Name     string       `json:"name"`     // in the spec
	Bridge   string       `json:"bridge"`   // "zb<n>"
	MAC      string       `json:"mac"`      // of the bridge
	Host     netip.Prefix `json:"host"`     // the node's address in the subnet, with its length
	Outbound bool         `json:"outbound"` // members may open connections to the outside
	MTU      int          `json:"mtu"`
	Taps     []Tap        `json:"taps"`
}

// Tap is one interface of one machine.
type Tap struct {
	Machine string     `json:"machine"`
	Name    string     `json:"name"` // "zt<n>"
	MAC     string     `json:"mac"`
	Address netip.Addr `json:"address"`
}

// Gateway is a port of the node that leads to a port of a machine.
type Gateway struct {
	Name     string         `json:"name"`
	Protocol string         `json:"protocol"` // "tcp"
	Port     uint16         `json:"port"`
	Bridge   string         `json:"bridge"`
	Target   netip.AddrPort `json:"target"`
	// Masquerade hides the client's address behind the bridge's: needed where
	// the target's default route does not lead back over this bridge.
	Masquerade bool `json:"masquerade"`
}

// Conflict says why a plan cannot stand on this node beside the others: a
// subnet that overlaps another or the uplink's, or a port that is taken.
// It is nil when it can.
func (p *Plan) Conflict(uplink []netip.Prefix, others []*Plan) error {
	for _, n := range p.Networks {
		for _, u := range uplink {
			if n.Host.Overlaps(u) {
				return fmt.Errorf("network %s: subnet %s overlaps the uplink's %s", n.Name, n.Host.Masked(), u.Masked())
			}
		}
		for _, o := range others {
			for _, on := range o.Networks {
				if n.Host.Overlaps(on.Host) {
					return fmt.Errorf("network %s: subnet %s overlaps %s (%s) of another deployment on this node", n.Name, n.Host.Masked(), on.Host.Masked(), on.Bridge)
				}
			}
		}
	}
	for _, g := range p.Gateways {
		for _, o := range others {
			for _, og := range o.Gateways {
				if g.Protocol == og.Protocol && g.Port == og.Port {
					return fmt.Errorf("gateway %s: %s port %d is taken by another deployment on this node", g.Name, g.Protocol, g.Port)
				}
			}
		}
	}
	return nil
}
