// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
)

// chaos makes entries that nodes and people could send in some state: honest
// ones, late ones, greedy ones, copies, and rubbish.
type chaos struct {
	t     *testing.T
	l     *ledgertest.Log
	rand  *rand.Rand
	nodes []*ledgertest.Node
	names int
	old   [][]byte
}

func (c *chaos) entry() []byte {
	b := c.make()
	c.old = append(c.old, b)
	return b
}

func (c *chaos) make() []byte {
	s := c.l.State()
	pick := func(n int) int { return c.rand.IntN(max(n, 1)) }
	var n *ledgertest.Node
	if len(c.nodes) > 0 {
		n = c.nodes[pick(len(c.nodes))]
	}
	var d *ledger.Deployment
	if all := s.Deployments(); len(all) > 0 {
		d = all[pick(len(all))]
	}
	var g *ledger.Grant
	if d != nil && len(d.Claims) > 0 {
		g = s.Claim(d.Claims[pick(len(d.Claims))])
	}
	edit := func(d *spec.Deployment) {
		d.Placement.Replicas = int64(1 + pick(3))
		d.Machines[0].VCPUs, d.Machines[0].MemoryMiB = int64(1+pick(2)), int64(128<<pick(4))
		d.Gateways[0].Port = int64(8000 + pick(20))
		for i := range pick(3) {
			d.Volumes = append(d.Volumes, spec.Volume{Name: fmt.Sprintf("v%d", i), SizeMiB: int64(16 << pick(9)), Filesystem: "ext4", Encryption: "none", AtEnd: "delete"})
		}
	}
	holder := func() *ledgertest.Node {
		for _, m := range c.nodes {
			if m.ID == g.Node {
				return m
			}
		}
		return n
	}
	switch k := pick(25); {
	case k == 0 || n == nil:
		n := c.l.NewNode(fmt.Sprintf("n%d", len(c.nodes)))
		c.nodes = append(c.nodes, n)
		return n.EnrolEntry(c.l.Voucher(fmt.Sprintf("v%d", pick(4)), 2, nil))
	case k == 1:
		offers := n.Capacity(int64(512 << pick(4))) // perhaps less than before
		offers.VCPUs, offers.StorageMiB = int64(1+pick(8)), int64(1000<<pick(4))
		return n.Entry(ledger.TypeCapacity, offers)
	case k >= 13 && k <= 18:
		return c.software(k%3, n)
	case k <= 3 || d == nil:
		c.names++
		return c.l.Register(fmt.Sprintf("d%d", c.names), 1, edit)
	case k == 4:
		return c.l.Register(d.Name, d.Version+1, edit)
	case k == 5:
		return c.l.Sign(ledger.TypeStop, ledger.Stop{Deployment: d.ID, Name: d.Name}, "author")
	case k <= 8 || g == nil:
		return n.Claim(d.ID)
	case k == 9:
		n := holder()
		return n.Entry(ledger.TypeRenew, ledger.Renew{Claim: g.Index, Acted: c.l.Acted()})
	case k == 10:
		n := holder()
		if pick(2) == 0 {
			return n.Record(g.Index, []string{"running", "start"}[pick(2)], []string{"ok", "failed"}[pick(2)], nil)
		}
		return n.Entry(ledger.TypeRelease, ledger.Release{Claim: g.Index, Reason: "x", Acted: c.l.Acted()})
	case k == 11:
		n := holder()
		return n.Entry(ledger.TypeClose, ledger.Close{Claim: g.Index, Records: g.Records, Result: []string{"stopped", "failed", "replaced", "released"}[pick(4)], Acted: c.l.Acted()})
	case k == 12:
		again := c.old[pick(len(c.old))]
		if pick(2) == 0 {
			return c.strange(again)
		}
		return again
	case k == 19:
		return c.incident(n, g.Index) // of whose claim it may not be
	case k == 20:
		return c.incident(holder(), []int64{g.Index, -1}[pick(2)])
	case k == 21:
		return c.rotation(1-pick(5)/4, []string{"root", "root", "author"}[pick(3)])
	case k == 22 && pick(6) == 0:
		return c.revocation(n.Key.PublicKey())
	case k >= 22:
		return n.Claim(d.ID)
	}
	b := bytes.Clone(c.l.RootEnv)
	b[pick(len(b))] ^= byte(1 << pick(8))
	return b
}

// strange is an entry to which a stranger adds a signature.
func (c *chaos) strange(raw []byte) []byte {
	env, err := sign.DecodeEnvelope(raw)
	if err != nil || env.Add(ledgertest.Key(c.t)) != nil {
		return raw // what cannot be read any more
	}
	b, err := env.Encode()
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// event is what happens in a block whatever chance says, "" for nothing: enough
// of what is rare, for the invariants to be held against it.
func (c *chaos) event(block int) []byte {
	s := c.l.State()
	switch {
	case block%20 == 10:
		return c.rotation(1, "root")
	case block%30 == 25: // of a node that would be a candidate
		for _, n := range c.nodes {
			if at := s.Node(n.ID); at != nil && at.Capacity != nil && s.Revoked(n.ID) == nil {
				return c.revocation(n.Key.PublicKey())
			}
		}
	case block == 95:
		return c.revocation(c.l.Keys["security2"].PublicKey())
	case block%5 == 0:
		for _, n := range c.nodes {
			if claims := s.ClaimsOf(n.ID); len(claims) > 0 && s.Revoked(n.ID) == nil {
				return c.incident(n, claims[c.rand.IntN(len(claims))].Index)
			}
		}
	}
	return nil
}

// incident is one of its own, however often a node reports it.
func (c *chaos) incident(n *ledgertest.Node, claim int64) []byte {
	return n.Entry(ledger.TypeIncident, ledger.Incident{Claim: claim, Kind: "guest-panic", Detail: fmt.Sprint(len(c.old)), Acted: c.l.Acted()})
}

// rotation is a later root of trust: other times for claims, another number of
// those who have to agree.
func (c *chaos) rotation(later int, by string) []byte {
	root := *c.l.State().Root()
	root.Version += int64(later)
	root.Lease.WindowMs, root.Lease.LeaseMs = int64(2000+c.rand.IntN(10_000)), int64(30_000+c.rand.IntN(60_000))
	root.Policy.Roles = maps.Clone(root.Policy.Roles)
	root.Policy.Roles["security"] = c.l.Role(int64(1+c.rand.IntN(2)), "security1", "security2")
	return c.l.Sign(ledger.TypeRoot, root, by)
}

// revocation takes a key out of use.
func (c *chaos) revocation(key string) []byte {
	return c.l.Sign(ledger.TypeRevoke, ledger.Revoke{Key: key, Compromised: c.rand.IntN(2) == 0, Reason: "lost"}, "root")
}

// software are entries about what nodes run: releases, rollouts up and down,
// and what nodes say of them, true or not.
func (c *chaos) software(k int, n *ledgertest.Node) []byte {
	s := c.l.State()
	version := func() string { return fmt.Sprintf("%d.%d", 1+c.rand.IntN(2), c.rand.IntN(6)) }
	if len(s.Releases()) == 0 || k == 0 {
		if c.rand.IntN(2) == 0 {
			return c.l.ChunkedRelease(version(), "a", "b")
		}
		return c.l.NodeRelease(version(), "a", "b")
	}
	r := s.Releases()[c.rand.IntN(len(s.Releases()))]
	if len(s.Rollouts()) == 0 || k == 1 {
		p := c.l.Rollout(r.ID, r.Version)
		p.MaxFailed = int64(1 + c.rand.IntN(3))
		if c.rand.IntN(2) == 0 {
			p.Floor = []string{version(), r.Version}[c.rand.IntN(2)]
			if ledger.CompareVersions(p.Floor, p.Version) > 0 {
				p.Floor = ""
			}
		}
		return c.l.Sign(ledger.TypeRollout, p, "release")
	}
	out := s.Rollouts()[c.rand.IntN(len(s.Rollouts()))]
	return n.Entry(ledger.TypeUpdate, ledger.Update{Rollout: out.ID, Version: out.Rollout.Version, Running: []string{version(), out.Rollout.Version}[c.rand.IntN(2)],
		Result: []string{ledger.UpdateTrying, ledger.UpdateBlessed, ledger.UpdateRolledBack, ledger.UpdateFailed}[c.rand.IntN(4)], Acted: c.l.Acted()})
}
