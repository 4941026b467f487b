// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/ledger/tiles"
	"github.com/zos-node/zos/spec/strict"
)

// FuzzStatement: whatever a peer says, a checkpoint that comes of it is one
// that the policy accepts, and never of another tree.
func FuzzStatement(f *testing.F) {
	policy, signers := ledgertest.Signers(f, "test.example/log")
	tree := tlog.Tree{N: 7, Hash: tlog.RecordHash([]byte("x"))}
	lines, err := signers.Lines(policy.Origin, tree)
	if err != nil {
		f.Fatal(err)
	}
	good, err := strict.Encode(statement{7, strings.Repeat("00", 32), lines, []string{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte(`"others":[]`), []byte(`"others":["— test.example/log AAAA"]`), 1))
	f.Add([]byte(`{"size":-1,"root":"","own":[],"others":[]}`))
	p := tiles.Policy{Origin: policy.Origin, Keys: []string{policy.Validators[0].Log}, Cosigners: []string{policy.Validators[0].Cosigner}, Quorum: 1}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newCollector(signers, policy.Origin)
		if err := c.hear("peer", b, time.Now()); err != nil {
			return
		}
		other := tlog.Tree{N: 8, Hash: tlog.RecordHash([]byte("y"))}
		if signed, err := c.checkpoint(p, other); err == nil {
			t.Errorf("a checkpoint of a tree that nobody signed: %s", signed)
		}
		_ = c.present(p, time.Now())
		_ = c.message(p)
	})
}
