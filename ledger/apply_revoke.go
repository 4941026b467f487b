// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"maps"
	"slices"

	"github.com/zos-node/zos/sign"
)

// Revocation is a key that counts no more, from the entry Index on.
type Revocation struct {
	Index       int64  `json:"index"`
	KeyID       string `json:"keyid"`
	Compromised bool   `json:"compromised"`
	Reason      string `json:"reason"`
}

// Revoked finds the revocation of a key by its fingerprint, nil if there is
// none.
func (s *State) Revoked(keyID string) *Revocation {
	if i, ok := s.revokedKey[keyID]; ok {
		return s.revoked.get(i)
	}
	return nil
}

// stillValid leaves the keys that nobody revoked.
func (s *State) stillValid(keys []string) ([]string, error) {
	if len(s.revokedKey) == 0 {
		return keys, nil
	}
	var rest []string
	for _, k := range keys {
		id, err := sign.Fingerprint(k)
		if err != nil {
			return nil, refusal("signatures", err)
		}
		if s.Revoked(id) == nil {
			rest = append(rest, k)
		}
	}
	return rest, nil
}

// valid leaves the keys of an entry that count, and refuses it at once if none
// does, with the reason.
func (s *State) valid(e *Entry, keys []string) ([]string, error) {
	rest, err := s.stillValid(keys)
	if err != nil {
		return nil, err
	}
	if len(keys) > 0 && len(rest) == 0 {
		id, err := sign.Fingerprint(keys[0])
		if err != nil {
			return nil, refusal("signatures", err)
		}
		return nil, refuse("signatures", "are by keys that count no more: %s was revoked by entry %d", id, s.Revoked(id).Index)
	}
	return rest, nil
}

// applyRevoke takes a key out of use from here on.
func (s *State) applyRevoke(a at, p *Revoke, keys []string) (func(), error) {
	root := s.Root()
	if err := root.check("root", keys, nil); err != nil {
		return nil, refusal("signatures", err)
	}
	id, err := sign.Fingerprint(p.Key)
	if err != nil {
		return nil, refusal("payload.key", err)
	}
	if r := s.Revoked(id); r != nil {
		return nil, refuse("payload.key", "is %s, which entry %d revoked already", id, r.Index)
	}
	for _, role := range root.Require["root"] {
		if slices.Contains(root.Policy.Roles[role].Keys, p.Key) {
			return nil, refuse("payload.key", "is in role %q of the root of trust: the next root of trust takes it out", role)
		}
	}
	r := Revocation{a.index, id, p.Compromised, p.Reason}
	return func() {
		s.revoked.put(a.index, r)
		s.revokedKey[id] = a.index
		if p.Compromised {
			s.endBecauseOf(a, r)
		}
	}, nil
}

// endBecauseOf ends what runs because of a key that somebody else has: the
// leases of a node with it, and deployments that it signed, which their nodes
// then take down as after a stop.
func (s *State) endBecauseOf(a at, r Revocation) {
	for _, claim := range slices.Sorted(maps.Keys(s.active)) {
		g := *s.claims.get(claim)
		if g.Node != r.KeyID {
			continue
		}
		index := s.nodeByID[g.Node]
		node := *s.nodes.get(index)
		node.Used = node.Used.minus(claim, needs(s.deployments.get(g.Deployment).Spec))
		node.Lost = true
		s.nodes.put(index, node)
		s.reopen(g, GrantExpired, a.timeMs)
	}
	for _, d := range slices.Clone(s.deployments.vals) {
		if d.Stopped >= 0 || d.Replaced >= 0 || !slices.ContainsFunc(slices.Collect(maps.Values(d.Roles)), func(ids []string) bool { return slices.Contains(ids, r.KeyID) }) {
			continue
		}
		stopped := *d
		stopped.Stopped, stopped.StopReason = a.index, fmt.Sprintf("key %s was compromised: %s", r.KeyID, r.Reason)
		s.deployments.put(d.ID, stopped)
	}
}
