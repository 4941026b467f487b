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
	switch k := pick(14); {
	case k == 0 || n == nil:
		n := c.l.NewNode(fmt.Sprintf("n%d", len(c.nodes)))
		c.nodes = append(c.nodes, n)
		return n.EnrolEntry(c.l.Voucher(fmt.Sprintf("v%d", pick(4)), 2, nil))
	case k == 1:
		return n.Entry(ledger.TypeCapacity, n.Capacity(int64(512<<pick(4)))) // perhaps less than before
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
				for ; folded < len(l.Leaves); folded++ {
					if err := second.Add(l.Leaves[folded]); err != nil {
						t.Fatal(err)
					}
				}
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
