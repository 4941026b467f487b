// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"slices"

	"github.com/zos-node/zos/sign"
)

// Succeeds checks the rule of root rotation, which is TUF's: version N+1
// has the "root" role's threshold of N and of N+1 (nil for version 1, which
// signs for itself). keys are those that signed the new root's envelope.
func (r *Root) Succeeds(old *Root, keys []string) error {
	if old != nil {
		if r.Version != old.Version+1 {
			return refuse("payload.version", "is %d, want %d", r.Version, old.Version+1)
		}
		if r.Log.Origin != old.Log.Origin {
			return refuse("payload.log.origin", "is %q, but a log keeps its origin, %q", r.Log.Origin, old.Log.Origin)
		}
		if err := old.check("root", keys, nil); err != nil {
			return refuse("signatures", "do not satisfy root version %d: %v", old.Version, err)
		}
	}
	if err := r.check("root", keys, nil); err != nil {
		return refuse("signatures", "do not satisfy root version %d itself: %v", r.Version, err)
	}
	return nil
}

// check applies the policy for a kind of document, with additional roles.
func (r *Root) check(what string, keys, more []string) error {
	_, err := r.Fill(what, keys, more)
	return err
}

// Fill says which keys fill which role for a kind of document ("root",
// "deployment", "stop", "voucher", "release"), with additional roles, or which are missing.
func (r *Root) Fill(what string, keys, more []string) (map[string][]string, error) {
	// Every root is validated when it is decoded.
	return r.Policy.Fill(keys, slices.Concat(r.Require[what], more))
}

// DecodeRoot reads and validates the envelope of a root and returns the keys
// that signed it. It does not decide whether to trust it: Succeeds does.
func DecodeRoot(envelope []byte) (*Root, []string, error) {
	e, err := Decode(envelope)
	if err != nil {
		return nil, nil, fmt.Errorf("root of trust: %w", err)
	}
	r, ok := e.Payload.(*Root)
	if !ok {
		return nil, nil, fmt.Errorf("root of trust: is a %s", e.Type)
	}
	keys, err := e.Envelope.Keys()
	if err != nil {
		return nil, nil, fmt.Errorf("root of trust: %w", err)
	}
	return r, keys, nil
}

func (s *State) applyRoot(a at, r *Root, keys []string, raw []byte) (func(), error) {
	var old *Root
	if len(s.roots) > 0 {
		old = s.Root()
	} else if r.Version != 1 {
		return nil, refuse("payload.version", "is %d, but a log begins with version 1", r.Version)
	}
	if err := r.Succeeds(old, keys); err != nil {
		return nil, err
	}
	return func() {
		s.root(rootAt{a.index, r, slices.Clone(raw)})
	}, nil
}

// fingerprints turns keys into what people compare.
func fingerprints(roles map[string][]string) (map[string][]string, error) {
	all := map[string][]string{}
	for role, keys := range roles {
		for _, k := range keys {
			id, err := sign.Fingerprint(k)
			if err != nil {
				return nil, refusal("signatures", err)
			}
			all[role] = append(all[role], id)
		}
	}
	return all, nil
}
