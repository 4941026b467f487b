// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec/spectest"
)

// trust is a folder with keys, a trust root and a spec.
type trust struct {
	t    *testing.T
	dir  string
	ids  map[string]string // key to fingerprint
	spec string
	root string
}

// newTrust makes a policy of author 1 of 1 and security 2 of 2; the author's
// key is in security too, where it must not count a second time.
func newTrust(t *testing.T) *trust {
	t.Helper()
	d := &trust{t: t, dir: t.TempDir(), ids: map[string]string{}}
	public := map[string]string{}
	signers := map[string]sign.Signer{}
	for _, name := range []string{"root", "author", "security1", "security2", "operator", "stranger"} {
		s, text, err := sign.GenerateSigner()
		if err != nil {
			t.Fatal(err)
		}
		put(t, d.key(name), string(text))
		put(t, d.key(name)+".pub", s.PublicKey()+" "+name+"\n")
		public[name], signers[name], d.ids[name] = s.PublicKey(), s, s.KeyID()
	}
	role := func(threshold int64, names ...string) sign.Role {
		r := sign.Role{Threshold: threshold}
		for _, n := range names {
			r.Keys = append(r.Keys, public[n])
		}
		return r
	}
	root := ledger.Root{
		Version: 1,
		Policy: sign.Policy{Roles: map[string]sign.Role{
			"root": role(1, "root"), "author": role(1, "author"), "operator": role(1, "operator"),
			"security": role(2, "author", "security1", "security2"),
		}},
		Require: map[string][]string{"root": {"root"}, "deployment": {"author", "security"}, "stop": {"author"}, "voucher": {"operator"}},
		Lease:   ledger.LeasePolicy{WindowMs: 10_000, LeaseMs: 60_000, GraceMs: 30_000},
	}
	root.Log, _ = ledgertest.Signers(t, "test.example/log")
	entry, err := ledger.NewEntry(ledger.TypeRoot, root, signers["root"])
	if err != nil {
		t.Fatal(err)
	}
	d.root = put(t, filepath.Join(d.dir, "root.json"), string(entry))
	full := spectest.Full()
	full.Security.RequiredRoles = nil
	text, err := full.Encode()
	if err != nil {
		t.Fatal(err)
	}
	d.spec = put(t, filepath.Join(d.dir, "spec.json"), string(text))
	return d
}

func (d *trust) key(name string) string  { return filepath.Join(d.dir, name) }
func (d *trust) file(name string) string { return filepath.Join(d.dir, name) }

// sign signs in with the key in a role, into the file out.
func (d *trust) sign(want int, key, role, in, out string, more ...string) (stdout, stderr string) {
	d.t.Helper()
	return cli(d.t, want, append([]string{"sign", "--key", d.key(key), "--role", role, "--root", d.root, in, "-o", out}, more...)...)
}
