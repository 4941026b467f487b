// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zos-node/zos/spec/strict"
)

// Missing is a role that did not get its threshold.
type Missing struct {
	Role string `json:"role"`
	Have int    `json:"have"`
	Want int    `json:"want"`
	Note string `json:"note"` // why a key that is in the role does not count for it, or ""
}

// PolicyError says which roles are not filled.
type PolicyError struct{ Missing []Missing }

func (e *PolicyError) Error() string {
	var parts []string
	for _, m := range e.Missing {
		part := fmt.Sprintf("role %q has %d of %d keys", m.Role, m.Have, m.Want)
		if m.Note != "" {
			part += " (" + m.Note + ")"
		}
		parts = append(parts, part)
	}
	return "policy not met: " + strings.Join(parts, "; ")
}

// Validate checks the policy itself: names, canonical keys, thresholds that
// can be reached, and no key written in two ways.
func (p Policy) Validate() error {
	written := map[string]string{} // key material to its text
	for _, role := range slices.Sorted(maps.Keys(p.Roles)) {
		at := strict.Join("roles", role)
		r := p.Roles[role]
		if !word(role) {
			return strict.Errorf(at, "is no name for a role, want small letters, digits and dashes, at most 32")
		}
		inRole := map[string]bool{}
		for i, text := range r.Keys {
			at := strict.Index(strict.Join(at, "keys"), i)
			k, err := parseKey(text)
			if err != nil {
				return strict.Errorf(at, "%v", err)
			}
			if inRole[k.material()] {
				return strict.Errorf(at, "is key %s, which the role has already", k.fingerprint())
			}
			inRole[k.material()] = true
			if other, ok := written[k.material()]; ok && other != text {
				return strict.Errorf(at, "is the same key as %q in another form", other)
			}
			written[k.material()] = text
		}
		if r.Threshold < 1 || r.Threshold > int64(len(r.Keys)) {
			return strict.Errorf(strict.Join(at, "threshold"), "is %d, want 1 to %d, the number of keys", r.Threshold, len(r.Keys))
		}
	}
	return nil
}

// Check says whether the keys, which have all signed, fill every role of
// require. It counts distinct public keys. Unless SharedKeys, one key fills
// one role; which one is searched for, so that an order of roles or keys never
// decides (author {A}, security {A, B}, signed by A and B: both are filled).
//
// The result has the keys of each role, in the order of their text; keys
// beyond the thresholds stand with a role that lists them. With a
// *PolicyError the result tells how far it got.
func (p Policy) Check(keys []string, require []string) (map[string][]string, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return p.Fill(keys, require)
}

// Fill is Check with a policy that Validate has accepted before.
func (p Policy) Fill(keys []string, require []string) (map[string][]string, error) {
	if len(require) == 0 {
		return nil, errors.New("the policy requires no role, so nothing could ever be refused")
	}
	roles := slices.Compact(slices.Sorted(slices.Values(require)))
	signed := slices.Compact(slices.Sorted(slices.Values(keys)))
	for _, role := range roles {
		if _, ok := p.Roles[role]; !ok {
			return nil, fmt.Errorf("role %q is required, but the policy has no such role", role)
		}
	}
	filled := make(map[string][]string, len(roles))
	if p.SharedKeys {
		for _, role := range roles {
			for _, k := range signed {
				if slices.Contains(p.Roles[role].Keys, k) {
					filled[role] = append(filled[role], k)
				}
			}
		}
		return filled, p.missing(roles, signed, filled)
	}
	m := matching{policy: p, keys: signed, of: map[string]string{}, count: map[string]int64{}}
	for _, role := range roles {
		for range p.Roles[role].Threshold {
			if !m.augment(role, map[string]bool{}) {
				break
			}
			m.count[role]++
		}
	}
	for _, k := range signed {
		role, ok := m.of[k]
		if !ok {
			i := slices.IndexFunc(roles, func(r string) bool { return slices.Contains(p.Roles[r].Keys, k) })
			if i < 0 {
				continue
			}
			role = roles[i]
		}
		filled[role] = append(filled[role], k)
	}
	return filled, p.missing(roles, signed, filled)
}

// matching assigns keys to roles, Kuhn's way: a role that finds no free key
// asks the holder of a taken one to move to another key.
type matching struct {
	policy Policy
	keys   []string
	of     map[string]string // key to the role that it fills
	count  map[string]int64
}

func (m *matching) augment(role string, tried map[string]bool) bool {
	for _, k := range m.keys {
		if tried[k] || m.of[k] == role || !slices.Contains(m.policy.Roles[role].Keys, k) {
			continue
		}
		tried[k] = true
		holder, taken := m.of[k]
		if !taken || m.augment(holder, tried) {
			m.of[k] = role
			return true
		}
	}
	return false
}

// missing lists the roles below their threshold as an error, nil if none.
func (p Policy) missing(roles, signed []string, filled map[string][]string) error {
	var all []Missing
	for _, role := range roles {
		r := p.Roles[role]
		have, want := len(filled[role]), int(r.Threshold)
		if have >= want {
			continue
		}
		m := Missing{Role: role, Have: have, Want: want}
		for _, k := range signed {
			if slices.Contains(r.Keys, k) && !slices.Contains(filled[role], k) {
				m.Note = "one key fills one role, and a key of this role was needed for another"
			}
		}
		all = append(all, m)
	}
	if all == nil {
		return nil
	}
	return &PolicyError{all}
}
