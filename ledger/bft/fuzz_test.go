// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"bytes"
	"fmt"
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

// FuzzBase: whatever a server says of where consensus stood, it fits the
// snapshot in what is proven, or it is refused.
func FuzzBase(f *testing.F) {
	l, dir := fresh(f, lease)
	e, err := Open(f.Context(), dir, Options{})
	if err != nil {
		f.Fatal(err)
	}
	for i := range 3 {
		if _, err := e.Submit(f.Context(), l.Register(fmt.Sprintf("d%d", i), 1, nil)); err != nil {
			f.Fatal(err)
		}
	}
	state := e.State()
	var good []byte
	waitFor(f, "the block after the last", func() bool {
		good, err = readBase(e.blocks, e.states, state.Height())
		return err == nil
	})
	chain := e.node.GenesisDoc().ChainID
	if err := e.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	want, err := openBase(good, chain, state)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := openBase(b, chain, state)
		if err != nil {
			return
		}
		if !got.state.LastBlockID.Equals(want.state.LastBlockID) || !bytes.Equal(got.state.AppHash, want.state.AppHash) || !bytes.Equal(got.state.Validators.Hash(), want.state.Validators.Hash()) ||
			!bytes.Equal(got.state.NextValidators.Hash(), want.state.NextValidators.Hash()) || !got.state.LastBlockTime.Equal(want.state.LastBlockTime) {
			t.Error("another place than the one that the validators signed")
		}
	})
}
