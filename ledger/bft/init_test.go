// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// TestInitLeavesNothing: what cannot be made is not begun, and what fails on the
// way leaves the folder as it was, so that the next try finds it vacant.
func TestInitLeavesNothing(t *testing.T) {
	l := ledgertest.New(t)
	made := t.TempDir() // by the administrator, who owns the folder above
	missing := filepath.Join(t.TempDir(), "ledger")
	noQuorum := l.Root
	noQuorum.Require = map[string][]string{"deployment": {"nobody"}}
	for name, c := range map[string]struct {
		root ledger.Root
		v    ledger.Validator
		m    Mesh
		says string
	}{
		"no address":            {l.Root, one, Mesh{Listen: "foo"}, "host:port"},
		"a port too large":      {l.Root, one, Mesh{Listen: "127.0.0.1:99999"}, "65535"},
		"no host":               {l.Root, one, Mesh{Listen: ":8471"}, "reach it"},
		"every address":         {l.Root, one, Mesh{Listen: "[::]:8471"}, "reach it"},
		"no name":               {l.Root, ledger.Validator{Name: "A B"}, Mesh{}, `name: is "A B", want a DNS label`},
		"no mirror":             {l.Root, ledger.Validator{Name: "a", Mirror: "ftp://x"}, Mesh{}, "mirror"},
		"a policy of nothing":   {noQuorum, one, Mesh{}, "root of trust: require"},
		"signed by nobody":      {l.Root, one, Mesh{Listen: "[fd00::1]:8471"}, "root of trust"},
		"a peer without an id":  {l.Root, one, Mesh{Listen: "127.0.0.1:1", Peers: []string{"x"}}, "peer"},
		"peers and no listener": {l.Root, one, Mesh{Peers: []string{"x"}}, "no address to listen on"},
	} {
		for _, dir := range []string{made, missing} {
			var by []signer
			if name != "signed by nobody" {
				by = []signer{l.Keys["root"]}
			}
			err := Init(dir, c.root, c.v, c.m, by, time.Now())
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, want %q", name, err, c.says)
			}
		}
		if list, err := os.ReadDir(made); err != nil || len(list) > 0 {
			t.Errorf("%s: the folder has %v afterwards, %v", name, list, err)
		}
		if _, err := os.Stat(missing); !os.IsNotExist(err) {
			t.Errorf("%s: there is a folder afterwards (%v)", name, err)
		}
	}
	for _, dir := range []string{made, missing} {
		if err := Init(dir, l.Root, one, Mesh{Listen: "[fd00::1]:8471"}, []signer{l.Keys["root"]}, time.Now()); err != nil {
			t.Errorf("then it is made: %v", err)
		}
	}
	d, err := ReadDescription(filepath.Join(made, "validator.json"))
	if err != nil || !strings.HasSuffix(d.Peer, "@[fd00::1]:8471") {
		t.Errorf("the peer is %q, %v", d.Peer, err)
	}
	// What stands there already is nobody's to take away.
	if err := Init(made, l.Root, one, Mesh{}, []signer{l.Keys["root"]}, time.Now()); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("a second one: %v", err)
	}
	if _, err := os.Stat(filepath.Join(made, "keys", "log.key")); err != nil {
		t.Error(err)
	}
}
