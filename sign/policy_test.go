// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestPolicyCheck(t *testing.T) {
	k := map[string]string{}
	for _, name := range []string{"a", "b", "c", "d", "x"} {
		k[name] = newKey(t).PublicKey()
	}
	keys := func(names string) []string {
		all := []string{}
		for _, n := range strings.Fields(names) {
			all = append(all, k[n])
		}
		return all
	}
	role := func(names string, threshold int64) Role { return Role{keys(names), threshold} }
	two := map[string]Role{"author": role("a", 1), "security": role("b c d", 2)}
	overlap := map[string]Role{"author": role("a b", 1), "security": role("a", 1)}
	// Greedy in any fixed order fails on one of these: r1 must leave a to r2,
	// r2 must leave b to r3.
	chain := map[string]Role{"r1": role("a b c", 1), "r2": role("a b", 1), "r3": role("b", 1)}
	for name, c := range map[string]struct {
		roles   map[string]Role
		shared  bool
		signed  string
		require string
		missing []Missing         // nil: met
		filled  map[string]string // by names; nil: not compared
	}{
		"met":                     {two, false, "a b c", "author security", nil, map[string]string{"author": "a", "security": "b c"}},
		"all are kept":            {two, false, "a b c d", "author security", nil, map[string]string{"author": "a", "security": "b c d"}},
		"stranger is ignored":     {two, false, "x a b c", "author security", nil, map[string]string{"author": "a", "security": "b c"}},
		"not all roles required":  {two, false, "a", "author", nil, map[string]string{"author": "a"}},
		"role required twice":     {two, false, "a", "author author", nil, map[string]string{"author": "a"}},
		"one short":               {two, false, "a b", "author security", []Missing{{"security", 1, 2, ""}}, map[string]string{"author": "a", "security": "b"}},
		"one key twice":           {two, false, "a b b", "author security", []Missing{{"security", 1, 2, ""}}, nil},
		"nobody":                  {two, false, "", "author security", []Missing{{"author", 0, 1, ""}, {"security", 0, 2, ""}}, nil},
		"key of no role":          {two, false, "x", "author", []Missing{{"author", 0, 1, ""}}, map[string]string{}},
		"key of another role":     {two, false, "b", "author", []Missing{{"author", 0, 1, ""}}, map[string]string{}},
		"one key in two roles":    {overlap, false, "a", "author security", []Missing{{"security", 0, 1, "one key fills one role, and a key of this role was needed for another"}}, nil},
		"two keys, one in both":   {overlap, false, "a b", "author security", nil, map[string]string{"author": "b", "security": "a"}},
		"shared keys":             {overlap, true, "a", "author security", nil, map[string]string{"author": "a", "security": "a"}},
		"shared keys, one short":  {two, true, "a b", "author security", []Missing{{"security", 1, 2, ""}}, nil},
		"keys change their roles": {chain, false, "a b c", "r1 r2 r3", nil, map[string]string{"r1": "c", "r2": "a", "r3": "b"}},
		"chain, one short":        {chain, false, "a b", "r1 r2 r3", []Missing{{"r3", 0, 1, "one key fills one role, and a key of this role was needed for another"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := Policy{Roles: c.roles, SharedKeys: c.shared}
			signed := keys(c.signed)
			for range 2 { // in both orders
				got, err := p.Check(signed, strings.Fields(c.require))
				var missing []Missing
				var e *PolicyError
				if errors.As(err, &e) {
					missing = e.Missing
				} else if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(missing, c.missing) {
					t.Errorf("missing %+v, want %+v", missing, c.missing)
				}
				if c.filled != nil {
					want := map[string][]string{}
					for role, names := range c.filled {
						want[role] = slices.Sorted(slices.Values(keys(names)))
					}
					if !reflect.DeepEqual(got, want) {
						t.Errorf("filled %v, want %v", got, want)
					}
				}
				slices.Reverse(signed)
			}
		})
	}
	p := Policy{Roles: two}
	if _, err := p.Check(keys("a"), nil); err == nil {
		t.Error("a policy that asks for nothing let something pass")
	}
	if _, err := p.Check(keys("a"), []string{"nobody"}); err == nil || !strings.Contains(err.Error(), `no such role`) {
		t.Errorf("required an unknown role, got %v", err)
	}
	_, err := p.Check(keys("a b"), []string{"author", "security"})
	if want := `policy not met: role "security" has 1 of 2 keys`; err == nil || err.Error() != want {
		t.Errorf("says %v, want %s", err, want)
	}
}

func TestPolicyValidate(t *testing.T) {
	signer := newKey(t)
	a, b := signer.PublicKey(), newKey(t).PublicKey()
	for name, c := range map[string]struct {
		role          string
		keys          []string
		threshold     int64
		field, reason string
	}{
		"name":        {"Author", []string{a}, 1, "roles.Author", "no name for a role"},
		"no keys":     {"author", nil, 1, "roles.author.threshold", "want 1 to 0"},
		"zero":        {"author", []string{a}, 0, "roles.author.threshold", "is 0"},
		"too high":    {"author", []string{a, b}, 3, "roles.author.threshold", "is 3, want 1 to 2"},
		"twice":       {"author", []string{a, b, a}, 1, "roles.author.keys[2]", "has already"},
		"comment":     {"author", []string{a + " me@home"}, 1, "roles.author.keys[0]", "without comment"},
		"two spaces":  {"author", []string{strings.Replace(a, " ", "  ", 1)}, 1, "roles.author.keys[0]", "no public key"},
		"other type":  {"author", []string{strings.Replace(a, "ssh-ed25519", "ssh-rsa", 1)}, 1, "roles.author.keys[0]", "canonical"},
		"fingerprint": {"author", []string{signer.KeyID()}, 1, "roles.author.keys[0]", "no public key"},
		"empty":       {"author", []string{""}, 1, "roles.author.keys[0]", "no public key"},
		"rsa":         {"author", []string{rsaKey(t)}, 1, "roles.author.keys[0]", "ssh-rsa are not accepted"},
		"token form":  {"author", []string{a, asToken(t, a)}, 1, "roles.author.keys[1]", "has already"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Policy{Roles: map[string]Role{c.role: {c.keys, c.threshold}}}.Validate()
			refused(t, err, c.field, c.reason)
		})
	}
	// One key in two forms, in two roles: it would count as two people.
	err := Policy{Roles: map[string]Role{"a": {[]string{a}, 1}, "b": {[]string{asToken(t, a)}, 1}}}.Validate()
	refused(t, err, "roles.b.keys[0]", "in another form")
	if err := (Policy{Roles: map[string]Role{"a": {[]string{a}, 1}, "b": {[]string{a, b}, 2}}}).Validate(); err != nil {
		t.Errorf("one key in two roles was refused: %v", err)
	}
}

// rsaKey is a key of a type that is not accepted.
func rsaKey(t *testing.T) string {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ssh.NewPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return key{p}.String()
}

// asToken writes an ed25519 key as if it were on a FIDO token.
func asToken(t *testing.T, publicKey string) string {
	t.Helper()
	k, err := parseKey(publicKey)
	if err != nil {
		t.Fatal(err)
	}
	var plain struct {
		Kind  string
		Point []byte
	}
	if err := ssh.Unmarshal(k.Marshal(), &plain); err != nil {
		t.Fatal(err)
	}
	p, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Kind, Point, App string
	}{ssh.KeyAlgoSKED25519, string(plain.Point), "ssh:"}))
	if err != nil {
		t.Fatal(err)
	}
	return key{p}.String()
}
