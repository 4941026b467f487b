// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"fmt"
	"testing"

	"github.com/zos-node/zos/ledger"
)

// hold checks a state by adding everything up again, and returns how many
// leases run.
func hold(t *testing.T, s *ledger.State) (leases int) {
	t.Helper()
	type use struct {
		vcpus, memory, storage int64
		ports                  map[int64]int64
	}
	used := map[string]*use{}
	newest := map[string]int64{} // token of the versions before, by name
	for _, d := range s.Deployments() {
		active := map[string]bool{}
		before := newest[d.Name]
		for _, g := range s.Claims(d.ID) {
			if g.Index <= before {
				t.Fatalf("token %d of version %d of %s is not above %d, which a version before has", g.Index, d.Version, d.Name, before)
			}
			newest[d.Name] = max(newest[d.Name], g.Index)
			if g.State != ledger.GrantActive {
				continue
			}
			leases++
			if active[g.Node] {
				t.Fatalf("node %s has two valid fencing tokens for deployment %d", g.Node, d.ID)
			}
			active[g.Node] = true
			if r := s.Revoked(g.Node); r != nil && r.Compromised {
				t.Fatalf("claim %d runs on node %s, whose key somebody else has since entry %d", g.Index, g.Node, r.Index)
			}
			u := used[g.Node]
			if u == nil {
				u = &use{ports: map[int64]int64{}}
				used[g.Node] = u
			}
			for _, m := range d.Spec.Machines {
				u.vcpus += m.VCPUs
				u.memory += m.MemoryMiB
			}
			for _, v := range d.Spec.Volumes {
				u.storage += v.SizeMiB
			}
			for _, gw := range d.Spec.Gateways {
				if by, taken := u.ports[gw.Port]; taken {
					t.Fatalf("port %d of node %s is booked by claims %d and %d", gw.Port, g.Node, by, g.Index)
				}
				u.ports[gw.Port] = g.Index
			}
		}
		// The rank that decides a claim is the one among all candidates, and who
		// gave up more attempts comes later.
		past := 0
		for _, c := range s.Candidates(d) {
			gave := 0
			for _, node := range d.Past {
				if node == c.Node {
					gave++
				}
			}
			if gave < past {
				t.Fatalf("of deployment %d node %s, which gave up %d attempts, comes after one that gave up %d", d.ID, c.Node, gave, past)
			}
			past = gave
			if s.Revoked(c.Node) != nil {
				t.Fatalf("node %s, whose key was revoked, is a candidate for deployment %d", c.Node, d.ID)
			}
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
	}
	incidents := map[int64]int64{}
	for _, i := range s.Incidents() {
		incidents[i.Incident.Claim]++
	}
	for _, d := range s.Deployments() {
		for _, g := range s.Claims(d.ID) {
			if g.Incidents != incidents[g.Index] {
				t.Fatalf("claim %d counts %d incidents, the ledger has %d", g.Index, g.Incidents, incidents[g.Index])
			}
		}
	}
	return leases
}

// holdSteps applies what a block accepted one by one, and after each holds what
// must hold of that entry: whoever signed it was not revoked by then, and a claim
// fits into what its node offers by then, beside all that runs there already.
func holdSteps(t *testing.T, s, after *ledger.State, block [][]byte, accepted []int) {
	t.Helper()
	for _, i := range accepted {
		e, err := ledger.Decode(block[i])
		if err != nil {
			t.Fatal(err)
		}
		if signer := e.Envelope.Signatures[0].KeyID; len(e.Envelope.Signatures) == 1 && s.Revoked(signer) != nil {
			t.Fatalf("a %s was accepted from %s, whose key was revoked", e.Type, signer)
		}
		version := int64(0)
		if root := s.Root(); root != nil {
			version = root.Version
		}
		if out := s.Apply(after.Height(), after.TimeMs(), [][]byte{block[i]}); len(out.Accepted) != 1 {
			t.Fatalf("what a block accepted is refused by itself: %v", out.Refused[0])
		}
		switch p := e.Payload.(type) {
		case *ledger.Root:
			if s.Root().Version != version+1 || p.Version != version+1 {
				t.Fatalf("root version %d follows %d", p.Version, version)
			}
		case *ledger.Claim:
			holdCapacity(t, s, s.Node(e.Envelope.Signatures[0].KeyID))
		}
	}
}

// holdCapacity adds up what runs on a node that has just been granted a claim.
func holdCapacity(t *testing.T, s *ledger.State, n *ledger.Node) {
	t.Helper()
	var vcpus, memory, storage int64
	for _, g := range s.ClaimsOf(n.ID) {
		if g.State != ledger.GrantActive {
			continue
		}
		d := s.Deployment(g.Deployment).Spec
		for _, m := range d.Machines {
			vcpus, memory = vcpus+m.VCPUs, memory+m.MemoryMiB
		}
		for _, v := range d.Volumes {
			storage += v.SizeMiB
		}
	}
	if c := n.Capacity; c == nil || vcpus > c.VCPUs || memory > c.MemoryMiB || storage > c.StorageMiB {
		t.Fatalf("node %s was granted claims for %d vCPUs, %d MiB memory and %d MiB storage in all; it offers %+v", n.ID, vcpus, memory, storage, c)
	}
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
	said := map[string]int64{}
	for _, r := range s.Rollouts() {
		p := r.Rollout
		if before, twice := said[fmt.Sprint(p)]; twice {
			t.Fatalf("rollout %d says what %d says", r.ID, before)
		}
		said[fmt.Sprint(p)] = r.ID
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
