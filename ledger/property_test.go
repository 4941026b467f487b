// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// TestAnyEntriesInAnyOrder feeds several validators blocks of any entries in
// any order, and after each block holds what must hold of every state. Chance
// is the same in each run but for the keys, and with them the ranks of nodes.
func TestAnyEntriesInAnyOrder(t *testing.T) {
	if _, err := os.Stat("/dev/shm"); err == nil {
		t.Setenv("TMPDIR", "/dev/shm") // rules need no disk
	}
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			l := ledgertest.New(t)
			c := &chaos{t: t, l: l, rand: rand.New(rand.NewPCG(seed, 7))}
			second := ledger.NewFold(ledger.NewState()) // from the leaves
			folded := 0
			granted, refused := 0, 0
			for i := range 110 {
				var block [][]byte
				if e := c.event(i); e != nil {
					block = append(block, e)
				}
				for range c.rand.IntN(6) {
					block = append(block, c.entry())
				}
				c.rand.Shuffle(len(block), func(i, j int) { block[i], block[j] = block[j], block[i] })
				l.Pass(int64(c.rand.IntN(20_000)))
				// Another validator with the same blocks, and one that was
				// restored from a snapshot, say the same of each entry.
				twin, before := l.State(), l.State()
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
				holdSteps(t, before, now, block, out.Accepted)
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
			s, ofClaims, revoked := l.State(), 0, 0
			for _, i := range s.Incidents() {
				ofClaims += int(min(i.Incident.Claim+1, 1))
			}
			for _, n := range s.Nodes() {
				if s.Revoked(n.ID) != nil {
					revoked++
				}
			}
			if s.Root().Version < 4 || revoked < 2 || revoked == len(s.Nodes()) || ofClaims < 3 {
				t.Errorf("nothing happened: root version %d, %d of %d nodes revoked, %d incidents of claims", s.Root().Version, revoked, len(s.Nodes()), ofClaims)
			}
			if granted == 0 || refused == 0 {
				t.Errorf("nothing happened: %d leases seen, %d refused", granted, refused)
			}
		})
	}
}
