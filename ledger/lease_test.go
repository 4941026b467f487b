// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"slices"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
)

type signRole = sign.Role

// ranked joins nodes, registers a deployment, and returns the nodes by rank.
func ranked(t *testing.T, l *ledgertest.Log, count int, edit func(*spec.Deployment)) ([]*ledgertest.Node, int64) {
	t.Helper()
	byID := map[string]*ledgertest.Node{}
	for i := range count {
		n := l.Join("n"+string(rune('a'+i)), 4096)
		byID[n.ID] = n
	}
	id := l.Must(l.Register("shop", 1, edit))
	var all []*ledgertest.Node
	s := l.State()
	for _, c := range s.Candidates(s.Deployment(id)) {
		all = append(all, byID[c.Node])
	}
	if len(all) != count {
		t.Fatalf("%d candidates, want %d", len(all), count)
	}
	return all, id
}

func TestRankedWindows(t *testing.T) {
	l := ledgertest.New(t)
	nodes, id := ranked(t, l, 3, nil)
	wants(t, l.Refuse(nodes[1].Claim(id)), "may claim in 10000 ms")
	wants(t, l.Refuse(nodes[2].Claim(id)), "may claim in 20000 ms")
	l.Pass(9_999)
	wants(t, l.Refuse(nodes[1].Claim(id)), "may claim in 1 ms")
	l.Pass(1)
	l.Must(nodes[1].Claim(id))
	wants(t, l.Refuse(nodes[0].Claim(id)), "all the nodes that it needs")
	wants(t, l.Refuse(nodes[1].Claim(id)), "holds it already")
}

func TestReplicas(t *testing.T) {
	l := ledgertest.New(t)
	nodes, id := ranked(t, l, 3, func(d *spec.Deployment) { d.Placement.Replicas = 2 })
	wants(t, l.Refuse(nodes[2].Claim(id)), "may claim in 10000 ms")
	l.Must(nodes[1].Claim(id))
	wants(t, l.Refuse(nodes[2].Claim(id)), "may claim in 10000 ms")
	c := l.Must(nodes[0].Claim(id))
	l.Must(nodes[0].Record(c, "running", "ok", nil))
	s := l.State()
	if got := s.Status(s.Deployment(id)); got != ledger.Claimed {
		t.Errorf("with one of two running the status is %s", got)
	}
	wants(t, l.Refuse(nodes[2].Claim(id)), "all the nodes that it needs")
}

func TestNoDoubleBooking(t *testing.T) {
	l := ledgertest.New(t)
	n := l.Join("n", 1024)
	big := func(d *spec.Deployment) { d.Machines[0].MemoryMiB = 8192 }
	a := l.Must(l.Register("a", 1, nil))
	b := l.Must(l.Register("b", 1, nil))
	c := l.Must(l.Register("c", 1, big))
	wants(t, l.Refuse(n.Claim(c)), "needs 8192 MiB memory, node has 1024 MiB free")
	// Both in one block: the first takes the port.
	out := l.Block(n.Claim(a), n.Claim(b))
	if len(out.Accepted) != 1 || out.Refused[1] == nil {
		t.Fatalf("outcome is %+v", out)
	}
	wants(t, out.Refused[1].Error(), "needs gateway port 8080, deployment a has it")
}

// TestReleaseRanksLast: who gave more attempts up comes after those who gave up
// fewer, however chance ranks them. One round alone chance may rank right.
func TestReleaseRanksLast(t *testing.T) {
	l := ledgertest.New(t)
	nodes, id := ranked(t, l, 4, nil)
	gave := map[string]int{}
	for _, i := range []int{0, 1, 0, 2, 0, 1, 0, 0, 1} {
		l.Pass(40_000) // everybody's turn
		claim := l.Must(nodes[i].Claim(id))
		l.Must(nodes[i].Entry(ledger.TypeRelease, ledger.Release{Claim: claim, Reason: "no chunk", Acted: l.Acted()}))
		gave[nodes[i].ID]++
		s := l.State()
		c := s.Candidates(s.Deployment(id))
		if len(c) != len(nodes) || !slices.IsSortedFunc(c, func(a, b ledger.Candidate) int { return gave[a.Node] - gave[b.Node] }) {
			t.Fatalf("candidates are %+v, attempts given up %v", c, gave)
		}
	}
}

func TestReleased(t *testing.T) {
	l := ledgertest.New(t)
	nodes, id := ranked(t, l, 2, nil)
	claim := l.Must(nodes[0].Claim(id))
	l.Must(nodes[0].Entry(ledger.TypeRelease, ledger.Release{Claim: claim, Reason: "no chunk", Acted: l.Acted()}))
	s := l.State()
	d := s.Deployment(id)
	if d.Attempt != 1 || s.Status(d) != ledger.Registered {
		t.Errorf("attempt %d, status %s", d.Attempt, s.Status(d))
	}
	old := nodes[1].Entry(ledger.TypeClaim, ledger.Claim{Deployment: id, Attempt: 0, Acted: l.Acted()})
	wants(t, l.Refuse(old), "payload.attempt", "want 1")
	l.Must(nodes[1].Claim(id))
	// The first node may still tell how it ended.
	l.Must(nodes[0].Record(claim, "network", "undone", nil))
	l.Must(nodes[0].Entry(ledger.TypeClose, ledger.Close{Claim: claim, Records: 1, Result: "failed", Acted: l.Acted()}))
	if s := l.State(); s.Status(s.Deployment(id)) != ledger.Claimed {
		t.Errorf("status is %s", s.Status(s.Deployment(id)))
	}
}

func TestFailedIsFinal(t *testing.T) {
	l := ledgertest.New(t)
	nodes, id := ranked(t, l, 2, nil)
	claim := l.Must(nodes[0].Claim(id))
	l.Must(nodes[0].Record(claim, "post-verify", "failed", nil))
	l.Must(nodes[0].Entry(ledger.TypeClose, ledger.Close{Claim: claim, Records: 1, Result: "failed", Reason: "health", Acted: l.Acted()}))
	s := l.State()
	if got := s.Status(s.Deployment(id)); got != ledger.Failed {
		t.Errorf("status is %s", got)
	}
	if free := s.Node(nodes[0].ID).Free(); free.MemoryMiB != 4096 {
		t.Errorf("not given back: %+v", free)
	}
	l.Pass(1_000_000)
	wants(t, l.Refuse(nodes[1].Claim(id)), "failed for good")
}

// tick makes the blocks that an engine would make, up to the clock.
func tick(l *ledgertest.Log, ms int64) {
	for ; ms > 0; ms -= 5000 {
		l.Pass(5000)
		if due := l.State().DueMs(); due >= 0 {
			l.Block()
		}
	}
}

func TestLeaseExpires(t *testing.T) {
	l := ledgertest.New(t)
	nodes, id := ranked(t, l, 2, nil)
	claim := l.Must(nodes[0].Claim(id))
	tick(l, 40_000)
	l.Must(nodes[0].Entry(ledger.TypeRenew, ledger.Renew{Claim: claim, Acted: l.Acted()}))
	tick(l, 50_000)
	if g := l.State().Claim(claim); g.State != ledger.GrantActive {
		t.Fatalf("renewed lease is %s", g.State)
	}
	tick(l, 15_000)
	s := l.State()
	if g := s.Claim(claim); g.State != ledger.GrantExpired {
		t.Fatalf("lease is %s", g.State)
	}
	if !s.Node(nodes[0].ID).Lost || s.Node(nodes[0].ID).Free().MemoryMiB != 4096 {
		t.Errorf("node is %+v", s.Node(nodes[0].ID))
	}
	wants(t, l.Refuse(nodes[0].Entry(ledger.TypeRenew, ledger.Renew{Claim: claim, Acted: l.Acted()})), "whose lease is expired")
	d := s.Deployment(id)
	c := s.Candidates(d)
	if d.Attempt != 1 || len(c) != 1 || c[0].Node != nodes[1].ID {
		t.Errorf("attempt %d, candidates %+v", d.Attempt, c)
	}
	l.Must(nodes[1].Claim(id))
	l.Must(nodes[0].Entry(ledger.TypeCapacity, nodes[0].Capacity(4096)))
	if l.State().Node(nodes[0].ID).Lost {
		t.Error("heard again, still lost")
	}
}

func TestStandstillExpiresNothing(t *testing.T) {
	l := ledgertest.New(t)
	nodes, id := ranked(t, l, 2, nil)
	claim := l.Must(nodes[0].Claim(id))
	l.Pass(3_600_000) // no block for an hour: the ledger was off
	l.Must(l.Register("other", 1, nil))
	s := l.State()
	g := s.Claim(claim)
	if g.State != ledger.GrantActive || g.ExpiresMs != s.TimeMs()+30_000 {
		t.Fatalf("grant is %+v at %d", g, s.TimeMs())
	}
	l.Must(nodes[0].Entry(ledger.TypeRenew, ledger.Renew{Claim: claim, Acted: l.Acted()}))
	tick(l, 65_000) // and then it does expire, the node being gone
	if g := l.State().Claim(claim); g.State != ledger.GrantExpired {
		t.Errorf("lease is %s", g.State)
	}
}

func TestIdleLedgerIsSilent(t *testing.T) {
	l := ledgertest.New(t)
	nodes, id := ranked(t, l, 1, nil)
	if due := l.State().DueMs(); due != -1 {
		t.Errorf("a block is due at %d without a lease", due)
	}
	l.Must(nodes[0].Claim(id))
	before := l.State()
	out := l.Block()
	after := l.State()
	if len(out.Leaves) != 0 || before.Size() != after.Size() || before.StateRoot() != after.StateRoot() {
		t.Error("an empty block changed something")
	}
	l.Pass(15_000)
	if out := l.Block(); len(out.Leaves) != 1 || !ledger.IsBlock(out.Leaves[0]) {
		t.Errorf("%d leaves when a block is due", len(out.Leaves))
	}
}

func TestMatchReasons(t *testing.T) {
	l := ledgertest.New(t)
	n := l.NewNode("n")
	d, err := spec.Decode(l.Spec("shop", 1, func(d *spec.Deployment) {
		d.Placement.Labels = map[string]string{"disk": "nvme", "site": "x"}
		d.Machines[0].Hypervisor = "cloud-hypervisor"
		d.Machines[0].VCPUs = 8
		d.Machines[0].MemoryMiB = 8192
		d.Volumes = []spec.Volume{{Name: "v", SizeMiB: 64, Filesystem: "ext4", Encryption: "none", AtEnd: "delete"}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	c := n.Capacity(1024)
	c.Arch, c.Addresses = "arm64", nil
	got := ledger.Match(d, &c, map[string]string{"site": "y"}, ledger.Free{VCPUs: 4, MemoryMiB: 1024, StorageMiB: 10, Ports: map[int64]string{8080: "blog"}})
	want := []string{
		"needs arch amd64, node has arm64",
		"needs label disk=nvme, node has no label disk",
		"needs label site=x, node has site=y",
		"machine web needs hypervisor cloud-hypervisor, node has qemu",
		"needs 8 vCPUs, node has 4 free",
		"needs 8192 MiB memory, node has 1024 MiB free",
		"needs 64 MiB storage, node has 10 MiB free",
		"needs gateway port 8080, deployment blog has it on the node",
		"has gateways, node publishes no address",
	}
	if !slices.Equal(got, want) {
		t.Errorf("reasons are\n%q, want\n%q", got, want)
	}
}

// Two nodes say the same words of themselves: each is heard.
func TestTwoNodesInTheSameWords(t *testing.T) {
	l := ledgertest.New(t)
	nodes, id := ranked(t, l, 2, func(d *spec.Deployment) { d.Placement.Replicas = 2 })
	l.Must(nodes[0].Entry(ledger.TypeCapacity, nodes[0].Capacity(8192)), nodes[1].Entry(ledger.TypeCapacity, nodes[1].Capacity(8192)))
	l.Must(nodes[0].Claim(id), nodes[1].Claim(id))
	s := l.State()
	if c := s.Claims(id); len(c) != 2 || c[0].Node == c[1].Node {
		t.Errorf("claims are %+v", c)
	}
	wants(t, l.Refuse(l.Leaves[len(l.Leaves)-2]), "the same is on the ledger already")
}
