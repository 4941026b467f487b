// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
)

// chaos makes entries that nodes and people could send in some state: honest
// ones, late ones, greedy ones, copies, and rubbish.
type chaos struct {
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
		d.Machines[0].MemoryMiB = int64(128 << pick(5))
		d.Gateways[0].Port = int64(8000 + pick(6))
	}
	switch k := pick(20); {
	case k == 0 || n == nil:
		n := c.l.NewNode(fmt.Sprintf("n%d", len(c.nodes)))
		c.nodes = append(c.nodes, n)
		return n.EnrolEntry(c.l.Voucher(fmt.Sprintf("v%d", pick(4)), 2, nil))
	case k == 1:
		return n.Entry(ledger.TypeCapacity, n.Capacity(int64(512<<pick(4)))) // perhaps less than before
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
		for _, m := range c.nodes {
			if m.ID == g.Node {
				n = m
			}
		}
		return n.Entry(ledger.TypeRenew, ledger.Renew{Claim: g.Index, Acted: c.l.Acted()})
	case k == 10:
		for _, m := range c.nodes {
			if m.ID == g.Node {
				n = m
			}
		}
		if pick(2) == 0 {
			return n.Record(g.Index, []string{"running", "start"}[pick(2)], []string{"ok", "failed"}[pick(2)], nil)
		}
		return n.Entry(ledger.TypeRelease, ledger.Release{Claim: g.Index, Reason: "x", Acted: c.l.Acted()})
	case k == 11:
		for _, m := range c.nodes {
			if m.ID == g.Node {
				n = m
			}
		}
		return n.Entry(ledger.TypeClose, ledger.Close{Claim: g.Index, Records: g.Records, Result: []string{"stopped", "failed", "replaced", "released"}[pick(4)], Acted: c.l.Acted()})
	case k == 12 && len(c.old) > 0:
		return c.old[pick(len(c.old))]
	}
	b := bytes.Clone(c.l.RootEnv)
	b[pick(len(b))] ^= byte(1 << pick(8))
	return b
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

// holdSoftware checks what must hold of releases and rollouts in every state.
func holdSoftware(t *testing.T, s *ledger.State) {
	t.Helper()
	versions := map[string]bool{}
	for _, r := range s.Releases() {
		if versions[r.Version] {
			t.Fatalf("version %s was released twice", r.Version)
		}
		versions[r.Version] = true
	}
	floor := ""
	for _, r := range s.Rollouts() {
		p := r.Rollout
		if rel := s.Released(p.Release); rel == nil || rel.Version != p.Version {
			t.Fatalf("rollout %d is of nothing: %+v", r.ID, p)
		}
		if floor != "" && ledger.CompareVersions(p.Version, floor) < 0 {
			t.Fatalf("rollout %d goes to %s, below the floor %s", r.ID, p.Version, floor)
		}
		if p.Floor != "" {
			if floor != "" && ledger.CompareVersions(p.Floor, floor) < 0 {
				t.Fatalf("rollout %d takes the floor from %s down to %s", r.ID, floor, p.Floor)
			}
			floor = p.Floor
		}
		last := map[string]string{}
		for _, u := range s.Updates() {
			if u.Rollout == r.ID {
				last[u.Name] = u.Result
			}
		}
		var trying, blessed, failed int64
		for _, result := range last {
			switch result {
			case ledger.UpdateTrying:
				trying++
			case ledger.UpdateBlessed:
				blessed++
			default:
				failed++
			}
		}
		if r.Trying != trying || r.Blessed != blessed || r.Failed != failed {
			t.Fatalf("rollout %d counts %d, %d, %d nodes, their last words are %v", r.ID, r.Trying, r.Blessed, r.Failed, last)
		}
	}
	if s.Floor() != floor {
		t.Fatalf("floor %q, want %q", s.Floor(), floor)
	}
	for _, n := range s.Nodes() {
		for _, runs := range []string{"1.0", "1.3", "2.1"} {
			target, _ := s.NextUpdate(ledger.NodeFacts{Name: n.Name, Labels: n.Labels, Board: "a", Version: runs}, s.TimeMs())
			if target != nil && (ledger.CompareVersions(target.Version, runs) <= 0 || ledger.CompareVersions(target.Version, floor) < 0) {
				t.Fatalf("node %s with %s and floor %q is to take %s", n.Name, runs, floor, target.Version)
			}
		}
	}
}

// TestAnyEntriesInAnyOrder feeds several validators blocks of any entries in
// any order, and after each block holds what must hold of every state.
func TestAnyEntriesInAnyOrder(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			l := ledgertest.New(t)
			c := &chaos{l: l, rand: rand.New(rand.NewPCG(seed, 7))}
			second := ledger.NewFold(ledger.NewState()) // from the leaves
			folded := 0
			granted, refused := 0, 0
			for range 90 {
				var block [][]byte
				for range c.rand.IntN(6) {
					block = append(block, c.entry())
				}
				c.rand.Shuffle(len(block), func(i, j int) { block[i], block[j] = block[j], block[i] })
				l.Pass(int64(c.rand.IntN(20_000)))
				// Another validator with the same blocks, and one that was
				// restored from a snapshot, say the same of each entry.
				twin := l.State()
				var restored *ledger.State
				if twin.Size() > 0 {
					var err error
					if restored, err = ledger.OpenSnapshot(twin.Snapshot()); err != nil {
						t.Fatal(err)
					}
				}
				out := l.Block(block...)
				now := l.State()
				for _, other := range []*ledger.State{twin, restored} {
					got := other.Apply(now.Height(), l.NowMs(), block)
					if got.StateRoot != out.StateRoot || len(got.Accepted) != len(out.Accepted) || other.RootHash() != now.RootHash() {
						t.Fatalf("two validators came to state roots %s and %s", got.StateRoot, out.StateRoot)
					}
				}
				for i := range block {
					err := out.Refused[i]
					_, in := out.Indexes[i]
					if in == (err != nil) {
						t.Fatalf("an entry is neither in nor refused: %v", err)
					}
					var why *ledger.Refused
					if err != nil && (!errors.As(err, &why) || why.Reason == "") {
						t.Fatalf("refused without a reason: %v", err)
					}
					if err != nil {
						refused++
					}
				}
				granted += hold(t, now)
				holdSoftware(t, now)
				for ; folded < len(l.Leaves); folded++ {
					if err := second.Add(l.Leaves[folded]); err != nil {
						t.Fatal(err)
					}
				}
			}
			if s := l.State(); len(s.Rollouts()) == 0 || len(s.Updates()) == 0 || s.Floor() == "" {
				t.Errorf("nothing happened to the nodes' software: %d rollouts, %d updates, floor %q", len(s.Rollouts()), len(s.Updates()), s.Floor())
			}
			if granted == 0 || refused == 0 {
				t.Errorf("nothing happened: %d leases seen, %d refused", granted, refused)
			}
		})
	}
}

// hold checks a state by adding everything up again, and returns how many
// leases run.
func hold(t *testing.T, s *ledger.State) (leases int) {
	t.Helper()
	type use struct {
		vcpus, memory, storage int64
		ports                  map[int64]int64
	}
	used := map[string]*use{}
	for _, d := range s.Deployments() {
		active := map[string]bool{}
		for _, g := range s.Claims(d.ID) {
			if g.State != ledger.GrantActive {
				continue
			}
			leases++
			if active[g.Node] {
				t.Fatalf("node %s has two valid fencing tokens for deployment %d", g.Node, d.ID)
			}
			active[g.Node] = true
			u := used[g.Node]
			if u == nil {
				u = &use{ports: map[int64]int64{}}
				used[g.Node] = u
			}
			for _, m := range d.Spec.Machines {
				u.vcpus += m.VCPUs
				u.memory += m.MemoryMiB
			}
			for _, gw := range d.Spec.Gateways {
				if by, taken := u.ports[gw.Port]; taken {
					t.Fatalf("port %d of node %s is booked by claims %d and %d", gw.Port, g.Node, by, g.Index)
				}
				u.ports[gw.Port] = g.Index
			}
		}
		// The rank that decides a claim is the one among all candidates.
		for _, c := range s.Candidates(d) {
			if from, reasons := s.MayClaim(d, c.Node); from != c.FromMs || len(reasons) > 0 {
				t.Fatalf("node %s may claim deployment %d from %d, %q; as a candidate from %d", c.Node, d.ID, from, reasons, c.FromMs)
			}
		}
		if int64(len(active))+d.Failed > d.Spec.Placement.Replicas {
			t.Fatalf("deployment %d has %d valid fencing tokens and %d failures for %d replicas", d.ID, len(active), d.Failed, d.Spec.Placement.Replicas)
		}
	}
	for _, n := range s.Nodes() {
		u := used[n.ID]
		if u == nil {
			u = &use{}
		}
		if n.Used.VCPUs != u.vcpus || n.Used.MemoryMiB != u.memory || n.Used.StorageMiB != u.storage || len(n.Used.Ports) != len(u.ports) {
			t.Fatalf("node %s has booked %+v, its leases add up to %+v", n.ID, n.Used, u)
		}
		if f := n.Free(); f.VCPUs < 0 || f.MemoryMiB < 0 || f.StorageMiB < 0 {
			t.Fatalf("node %s has less than nothing: %+v", n.ID, f)
		}
	}
	return leases
}
