// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
)

func revoke(l *ledgertest.Log, key string, compromised bool, signer string) []byte {
	return l.Sign(ledger.TypeRevoke, ledger.Revoke{Key: key, Compromised: compromised, Reason: "lost"}, signer)
}

// What counts is the place in the log: what a key signed before it was revoked
// stays, what it signs later is nothing.
func TestRevocationByIndex(t *testing.T) {
	l := ledgertest.New(t)
	n := l.Join("n", 4096)
	before := l.Must(l.Register("before", 1, nil))
	claim := l.Must(n.Claim(before))
	later := l.Register("later", 1, func(d *spec.Deployment) { d.Gateways[0].Port = 81 }) // signed in time, comes too late
	author := l.Keys["author"].PublicKey()
	wants(t, l.Refuse(revoke(l, author, false, "author")), `"root" has 0 of 1`)
	wants(t, l.Refuse(revoke(l, l.Keys["root"].PublicKey(), false, "root")), "the next root of trust takes it out")
	at := l.Must(revoke(l, author, false, "root"))
	wants(t, l.Refuse(revoke(l, author, true, "root")), "revoked already")
	wants(t, l.Refuse(later), `"author" has 0 of 1`)
	wants(t, l.Refuse(l.Sign(ledger.TypeStop, ledger.Stop{Deployment: before, Name: "before"}, "author")), "was revoked by entry")
	s := l.State()
	if s.Status(s.Deployment(before)) != ledger.Claimed || s.Revoked(l.Keys["author"].KeyID()).Index != at {
		t.Errorf("what was registered before is %s", s.Status(s.Deployment(before)))
	}
	// Compromised: what runs because of it ends too.
	l.Must(revoke(l, l.Keys["security1"].PublicKey(), true, "root"))
	s = l.State()
	if s.Status(s.Deployment(before)) != ledger.Stopping {
		t.Errorf("what a compromised key signed is %s", s.Status(s.Deployment(before)))
	}
	l.Must(n.Entry(ledger.TypeClose, ledger.Close{Claim: claim, Records: 0, Result: "stopped", Acted: l.Acted()}))
	// The voucher's signer, and a node.
	l.Must(revoke(l, l.Keys["operator"].PublicKey(), false, "root"))
	wants(t, l.Refuse(l.NewNode("m").EnrolEntry(l.Voucher("m", 1, nil))), `"operator" has 0 of 1`)
	l.Must(revoke(l, n.Key.PublicKey(), true, "root"))
	wants(t, l.Refuse(n.Entry(ledger.TypeCapacity, n.Capacity(1))), "was revoked by entry")
	c := l.Client("", l.Dir)
	if err := c.Sync(t.Context()); err != nil || c.State().StateRoot() != l.State().StateRoot() {
		t.Error(err)
	}
	if s, err := ledger.OpenSnapshot(l.State().Snapshot()); err != nil || s.StateRoot() != l.State().StateRoot() || s.Revoked(n.ID) == nil {
		t.Errorf("after a snapshot: %v", err)
	}
}

// A node whose key is compromised loses what it has to others.
func TestCompromisedNode(t *testing.T) {
	l := ledgertest.New(t)
	nodes, id := ranked(t, l, 2, nil)
	claim := l.Must(nodes[0].Claim(id))
	l.Must(revoke(l, nodes[0].Key.PublicKey(), true, "root"))
	s := l.State()
	if s.Claim(claim).State != ledger.GrantExpired || s.Node(nodes[0].ID).Used.MemoryMiB != 0 {
		t.Errorf("the claim is %+v", s.Claim(claim))
	}
	l.Must(nodes[1].Claim(id))
}

// A node whose key was revoked is no candidate, and nobody waits for its turn.
func TestRevokedNodeIsNoCandidate(t *testing.T) {
	l := ledgertest.New(t)
	nodes, id := ranked(t, l, 2, nil)
	l.Must(revoke(l, nodes[0].Key.PublicKey(), false, "root"))
	s := l.State()
	d := s.Deployment(id)
	if all := s.Candidates(d); len(all) != 1 || all[0].Node != nodes[1].ID {
		t.Errorf("the candidates are %+v", all)
	}
	if against := s.Match(d, s.Node(nodes[0].ID)); len(against) != 1 || against[0] != "node's key was revoked" {
		t.Errorf("against the revoked node: %q", against)
	}
	l.Must(nodes[1].Claim(id)) // at once
}

// Incidents of a claim are counted with it, others are not.
func TestIncidentsAreCounted(t *testing.T) {
	l := ledgertest.New(t)
	n := l.Join("n", 4096)
	claim := l.Must(n.Claim(l.Must(l.Register("shop", 1, nil))))
	for i, about := range []int64{claim, -1, claim} {
		l.Must(n.Entry(ledger.TypeIncident, ledger.Incident{Claim: about, Kind: "guest-panic", Detail: string(rune('a' + i)), Acted: l.Acted()}))
	}
	if g := l.State().Claim(claim); g.Incidents != 2 || len(l.State().Incidents()) != 3 {
		t.Errorf("the claim counts %d incidents, the ledger has %d", g.Incidents, len(l.State().Incidents()))
	}
}
