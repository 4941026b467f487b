// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"github.com/zos-node/zos/sign"
)

// applyNode takes the entries that enrolled nodes sign: exactly one
// signature, and a log state to act on that this log had.
func (s *State) applyNode(a at, e *Entry, keys []string) (func(), error) {
	if len(keys) != 1 {
		return nil, refuse("signatures", "are %d, want one, by a node", len(keys))
	}
	id, err := sign.Fingerprint(keys[0])
	if err != nil {
		return nil, refusal("signatures", err)
	}
	index, ok := s.nodeByID[id]
	if !ok {
		return nil, refuse("signatures[0].keyid", "is %s, which is no enrolled node", id)
	}
	node := *s.nodes.get(index)
	node.Lost, node.HeardMs = false, a.timeMs
	var change func()
	switch p := e.Payload.(type) {
	case *Capacity:
		c := *p
		node.Capacity, node.CapacityIndex = &c, a.index
		err = s.hadState(p.Acted)
	case *Claim:
		change, err = s.applyClaim(a, p, &node)
	case *Renew:
		change, err = s.applyRenew(a, p, &node)
	case *Release:
		change, err = s.applyRelease(a, p, &node)
	case *Record:
		change, err = s.applyRecord(a, p, &node, e.Raw)
	case *Incident:
		change, err = s.applyIncident(a, p, &node)
	case *Close:
		change, err = s.applyClose(a, p, &node)
	case *Update:
		change, err = s.applyUpdate(a, p, &node)
	default:
		err = refuse("payloadType", "is %s, which nobody may submit", e.Type)
	}
	if err != nil {
		return nil, err
	}
	return func() {
		if change != nil {
			change()
		}
		s.nodes.put(index, node)
	}, nil
}

// grantOf finds a claim and checks that it is this node's.
func (s *State) grantOf(claim int64, node *Node) (Grant, error) {
	g := s.claims.get(claim)
	if g == nil {
		return Grant{}, refuse("payload.claim", "is %d, where no claim was granted", claim)
	}
	if g.Node != node.ID {
		return Grant{}, refuse("payload.claim", "is %d, which belongs to node %s", claim, g.Node)
	}
	return *g, nil
}
