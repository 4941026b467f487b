// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
)

// Signer is one who signed an entry.
type Signer struct {
	Key  string `json:"key"`  // fingerprint
	Role string `json:"role"` // as which it counts: "author", "node n1", …; "" if it does as nothing
	Not  string `json:"not"`  // why it fills no role of the policy, "" if it does or there is none
}

// Policy is one that an entry of people had to meet, and how it did.
type Policy struct {
	RootVersion int64 `json:"rootVersion"` // of the root of trust whose policy it is
	// Replaces is the register entry of the version that this one replaces, and
	// under whose policy it had to be agreed to as well; -1 for the policy in
	// force.
	Replaces int64    `json:"replaces"`
	Roles    []Filled `json:"roles"`
}

// Filled is a role that had to be filled, and by whom it was. Keys that were
// revoked before the entry are not among them.
type Filled struct {
	Role      string   `json:"role"`
	Threshold int64    `json:"threshold"`
	Keys      []string `json:"keys"` // fingerprints
}

// String tells it in a line.
func (p Policy) String() string {
	var roles []string
	for _, f := range p.Roles {
		roles = append(roles, fmt.Sprintf("%s %d (needs %d)", f.Role, len(f.Keys), f.Threshold))
	}
	under := fmt.Sprintf("root version %d", p.RootVersion)
	if p.Replaces >= 0 {
		under = fmt.Sprintf("the policy of entry %d, which it replaces, of root version %d", p.Replaces, p.RootVersion)
	}
	return fmt.Sprintf("agreed under %s: %s", under, strings.Join(roles, ", "))
}

// filled is the role that a key fills, "" for none.
func (p Policy) filled(key string) string {
	for _, f := range p.Roles {
		if slices.Contains(f.Keys, key) {
			return f.Role
		}
	}
	return ""
}

// policy holds the keys of an entry, by fingerprint, against one policy.
func policy(root *ledger.Root, what string, ids map[string]string, keys, more []string, replaces int64) (Policy, error) {
	p := Policy{RootVersion: root.Version, Replaces: replaces, Roles: []Filled{}}
	byRole, err := root.Fill(what, keys, more)
	if err != nil {
		return p, err
	}
	required := slices.Sorted(slices.Values(slices.Concat(root.Require[what], more)))
	for _, role := range slices.Compact(required) {
		f := Filled{role, root.Policy.Roles[role].Threshold, []string{}}
		for _, k := range byRole[role] {
			f.Keys = append(f.Keys, ids[k])
		}
		p.Roles = append(p.Roles, f)
	}
	return p, nil
}

// agreed says which policies an entry had to meet, and who signed it as what. As
// Apply does, it counts no key that was revoked before.
func (t *teller) agreed(index int64, e *ledger.Entry) ([]Policy, []Signer, error) {
	all, err := e.Envelope.Keys()
	if err != nil {
		return nil, nil, err
	}
	ids, keys := map[string]string{}, []string{}
	for _, k := range all {
		if ids[k], err = sign.Fingerprint(k); err != nil {
			return nil, nil, err
		}
		if _, gone := t.revoked[ids[k]]; !gone {
			keys = append(keys, k)
		}
	}
	policies, err := t.policies(index, e, ids, keys)
	if err != nil {
		return nil, nil, err
	}
	var signers []Signer
	for _, k := range all {
		signers = append(signers, t.signer(ids[k], policies))
	}
	return policies, signers, nil
}

// policies are those that an entry had to meet; none of what nodes sign.
func (t *teller) policies(index int64, e *ledger.Entry, ids map[string]string, keys []string) ([]Policy, error) {
	what, more := "", []string(nil)
	switch p := e.Payload.(type) {
	case *spec.Deployment:
		what, more = "deployment", p.Security.RequiredRoles
	case *ledger.Stop:
		what = "stop"
	case *ledger.Revoke:
		what = "root"
	default:
		return []Policy{}, nil
	}
	now, err := policy(t.root, what, ids, keys, more, -1)
	if err != nil {
		return nil, err
	}
	all := []Policy{now}
	for _, old := range t.state.Deployments() {
		if old.Replaced != index {
			continue
		}
		before, err := policy(t.state.RootAt(old.RootVersion), what, ids, keys, old.Spec.Security.RequiredRoles, old.ID)
		if err != nil {
			return nil, err
		}
		all = append(all, before)
	}
	return all, nil
}

// signer says as what a key counts in an entry, or why it does not.
func (t *teller) signer(id string, policies []Policy) Signer {
	s := Signer{Key: id}
	if at, gone := t.revoked[id]; gone {
		s.Not = fmt.Sprintf("revoked by entry %d", at)
		return s
	}
	for _, p := range policies {
		role := p.filled(id)
		if role == "" {
			continue
		}
		s.Role = role
		if p.Replaces >= 0 { // of the policy before alone
			s.Role = fmt.Sprintf("%s of root version %d", role, p.RootVersion)
		}
		return s
	}
	n := t.state.Node(id)
	if n != nil {
		s.Role = "node " + n.Name
	}
	if n == nil || len(policies) > 0 {
		s.Not = "not of a role"
	}
	return s
}

// turns tells of each claim of a story why its node was allowed then, as a state
// that kept it knows.
func (st *Story) turns(s *ledger.State) {
	for i := range st.Items {
		if it := &st.Items[i]; it.Kind == "claim" {
			it.Turn = s.Turn(it.Index)
		}
	}
}

// counted holds who filled the roles of a version against what the state counts.
func (r *Report) counted(d *ledger.Deployment, root *ledger.Root) {
	told := map[string][]string{}
	for _, it := range r.Story.Items {
		if it.Index == d.ID && len(it.Policies) > 0 {
			for _, f := range it.Policies[0].Roles {
				told[f.Role] = f.Keys
			}
		}
	}
	required := slices.Sorted(slices.Values(slices.Concat(root.Require["deployment"], d.Spec.Security.RequiredRoles)))
	for _, role := range slices.Compact(required) {
		have, want := d.Roles[role], root.Policy.Roles[role].Threshold
		if int64(len(have)) < want {
			r.wrong("entry %d: role %s has %d of %d signatures", d.ID, role, len(have), want)
		} else if !slices.Equal(have, told[role]) {
			r.wrong("entry %d: role %s is filled by %q, the state counts %q", d.ID, role, told[role], have)
		}
	}
	for _, role := range slices.Sorted(maps.Keys(d.Roles)) {
		if !slices.Contains(required, role) && len(d.Roles[role]) > 0 {
			r.wrong("entry %d: the state counts %q for role %s, which was not asked for", d.ID, d.Roles[role], role)
		}
	}
}
