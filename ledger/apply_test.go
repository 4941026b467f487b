// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
)

// wants fails unless a refusal names what it should.
func wants(t *testing.T, got string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(got, w) {
			t.Errorf("refusal is %q, want it to name %q", got, w)
		}
	}
}

func TestLifeOfADeployment(t *testing.T) {
	l := ledgertest.New(t)
	n := l.Join("n1", 4096)
	id := l.Must(l.Register("shop", 1, nil))
	s := l.State()
	if got := s.Status(s.Deployment(id)); got != ledger.Registered {
		t.Errorf("status is %s", got)
	}
	claim := l.Must(n.Claim(id))
	s = l.State()
	if got := s.Status(s.Deployment(id)); got != ledger.Claimed {
		t.Errorf("status is %s", got)
	}
	if free := s.Node(n.ID).Free(); free.MemoryMiB != 4096-512 || free.VCPUs != 3 || free.Ports[8080] != "shop" {
		t.Errorf("free is %+v", free)
	}
	l.Must(n.Record(claim, "plan", "ok", nil))
	l.Must(n.Record(claim, "running", "ok", nil))
	s = l.State()
	if got := s.Status(s.Deployment(id)); got != ledger.Running {
		t.Errorf("status is %s", got)
	}
	l.Must(n.Entry(ledger.TypeIncident, ledger.Incident{Claim: claim, Kind: "guest-panic", Machine: "web", Acted: l.Acted()}))
	wants(t, l.Refuse(n.Entry(ledger.TypeClose, ledger.Close{Claim: claim, Records: 2, Result: "stopped", Acted: l.Acted()})), "nobody stopped")
	l.Must(l.Sign(ledger.TypeStop, ledger.Stop{Deployment: id, Name: "shop", Reason: "done"}, "author"))
	s = l.State()
	if got := s.Status(s.Deployment(id)); got != ledger.Stopping {
		t.Errorf("status is %s", got)
	}
	wants(t, l.Refuse(n.Entry(ledger.TypeClose, ledger.Close{Claim: claim, Records: 1, Result: "stopped", Acted: l.Acted()})), "payload.records", "2 records")
	l.Must(n.Entry(ledger.TypeClose, ledger.Close{Claim: claim, Records: 2, Result: "stopped", Acted: l.Acted()}))
	s = l.State()
	if got := s.Status(s.Deployment(id)); got != ledger.Stopped {
		t.Errorf("status is %s", got)
	}
	if free := s.Node(n.ID).Free(); free.MemoryMiB != 4096 || len(free.Ports) != 0 {
		t.Errorf("not given back: %+v", free)
	}
	wants(t, l.Refuse(n.Record(claim, "late", "ok", nil)), "was closed")
	if len(s.Records(claim)) != 2 || len(s.Incidents()) != 1 {
		t.Errorf("%d records, %d incidents", len(s.Records(claim)), len(s.Incidents()))
	}
}

func TestRegister(t *testing.T) {
	l := ledgertest.New(t)
	sp := l.Spec("shop", 1, nil)
	wants(t, l.Refuse(l.Sign(ledger.TypeDeployment, sp, "author", "security1")), "signatures", `"security" has 1 of 2`)
	wants(t, l.Refuse(l.Sign(ledger.TypeDeployment, sp, "security1", "security2")), `"author" has 0 of 1`)
	wants(t, l.Refuse(l.Register("shop", 2, nil)), "payload.metadata.version", "want 1")
	wants(t, l.Refuse(l.Register("shop", 1, func(d *spec.Deployment) { d.Security.RequiredRoles = []string{"operator"} })), `"operator" has 0 of 1`)
	more := func(d *spec.Deployment) { d.Security.RequiredRoles = []string{"operator"} }
	first := l.Must(l.Sign(ledger.TypeDeployment, l.Spec("shop", 1, more), "author", "security1", "security2", "operator"))
	wants(t, l.Refuse(l.Register("shop", 1, nil)), "want 2")
	wants(t, l.Refuse(l.Register("shop", 3, nil)), "want 2")
	// The update drops the role from its spec, but the version before demanded it.
	wants(t, l.Refuse(l.Register("shop", 2, nil)), `"operator" has 0 of 1`)
	second := l.Must(l.Sign(ledger.TypeDeployment, l.Spec("shop", 2, nil), "author", "security1", "security2", "operator"))
	s := l.State()
	if s.Deployment(first).Replaced != second || s.DeploymentByName("shop").ID != second || s.Status(s.Deployment(first)) != ledger.Replaced {
		t.Errorf("not replaced: %+v", s.Deployment(first))
	}
	wants(t, l.Refuse(l.Sign(ledger.TypeStop, ledger.Stop{Deployment: first, Name: "shop"}, "author")), "replaced: stop that one")
}

func TestUpdateNeedsOldAndNewPolicy(t *testing.T) {
	l := ledgertest.New(t)
	l.Must(l.Register("shop", 1, nil))
	l.Keys["new"] = ledgertest.Key(t)
	next := l.Root
	next.Version = 2
	next.Policy.Roles["author"] = l.Role(1, "new")
	l.Must(l.Sign(ledger.TypeRoot, next, "root"))
	wants(t, l.Refuse(l.Sign(ledger.TypeDeployment, l.Spec("shop", 2, nil), "new", "security1", "security2")), "root version 1", `"author" has 0 of 1`)
	wants(t, l.Refuse(l.Register("shop", 2, nil)), `"author" has 0 of 1`)
	l.Must(l.Sign(ledger.TypeDeployment, l.Spec("shop", 2, nil), "author", "new", "security1", "security2"))
	l.Must(l.Sign(ledger.TypeDeployment, l.Spec("other", 1, nil), "new", "security1", "security2"))
}

func TestStop(t *testing.T) {
	l := ledgertest.New(t)
	id := l.Must(l.Register("shop", 1, nil))
	stop := ledger.Stop{Deployment: id, Name: "shop", Reason: "x"}
	wants(t, l.Refuse(l.Sign(ledger.TypeStop, stop, "operator")), `"author" has 0 of 1`)
	wants(t, l.Refuse(l.Sign(ledger.TypeStop, ledger.Stop{Deployment: id, Name: "ship"}, "author")), "payload.name", `registered "shop"`)
	wants(t, l.Refuse(l.Sign(ledger.TypeStop, ledger.Stop{Deployment: id + 1, Name: "shop"}, "author")), "no deployment")
	l.Must(l.Sign(ledger.TypeStop, stop, "author"))
	stop.Reason = "again"
	wants(t, l.Refuse(l.Sign(ledger.TypeStop, stop, "author")), "stopped already")
}

func TestRootRotation(t *testing.T) {
	l := ledgertest.New(t)
	l.Keys["root2"] = ledgertest.Key(t)
	next := l.Root
	next.Policy.Roles = map[string]signRole{}
	for k, v := range l.Root.Policy.Roles {
		next.Policy.Roles[k] = v
	}
	next.Policy.Roles["root"] = l.Role(1, "root2")
	next.Version = 3
	wants(t, l.Refuse(l.Sign(ledger.TypeRoot, next, "root", "root2")), "payload.version", "want 2")
	next.Version = 2
	wants(t, l.Refuse(l.Sign(ledger.TypeRoot, next, "root2")), "root version 1")
	wants(t, l.Refuse(l.Sign(ledger.TypeRoot, next, "root")), "root version 2 itself")
	other := next
	other.Log.Origin = "other.example/log"
	other.Log, _ = ledgertest.Signers(t, "other.example/log")
	wants(t, l.Refuse(l.Sign(ledger.TypeRoot, other, "root", "root2")), "keeps its origin")
	l.Must(l.Sign(ledger.TypeRoot, next, "root", "root2"))
	if v := l.State().Root().Version; v != 2 {
		t.Errorf("root version is %d", v)
	}
	c := l.Client("", l.Serve())
	if err := c.Sync(t.Context()); err != nil {
		t.Fatalf("client with root version 1: %v", err)
	}
}

func TestEnrol(t *testing.T) {
	l := ledgertest.New(t)
	v := l.Voucher("batch-1", 2, map[string]string{"site": "a"})
	a, b, c := l.NewNode("a"), l.NewNode("b"), l.NewNode("c")
	wants(t, l.Refuse(a.EnrolEntry(l.Envelope(ledger.TypeVoucher, ledger.Voucher{ID: "x", Uses: 1, Key: l.Keys["voucher"].PublicKey()}, "author"))), "payload.voucher.signatures", `"operator" has 0 of 1`)
	forged := v
	forged.Payload = []byte(strings.Replace(string(v.Payload), `"uses":2`, `"uses":9`, 1))
	wants(t, l.Refuse(a.EnrolEntry(forged)), "payload.voucher", "wrong for this payload")
	enrol := ledger.Enrol{Name: "a", Key: a.Key.PublicKey(), Voucher: v, Image: "x", Acted: l.Acted()}
	wants(t, l.Refuse(b.Entry(ledger.TypeEnrol, enrol)), "signatures", "key that enrols")
	// Everybody can read the voucher on the ledger: without its key it is worth nothing.
	wants(t, l.Refuse(a.Entry(ledger.TypeEnrol, enrol)), "signatures", "voucher's")
	stolen, err := ledger.NewEntry(ledger.TypeEnrol, enrol, a.Key, b.Key)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, l.Refuse(stolen), "signatures", "voucher's")
	l.Must(a.EnrolEntry(v))
	wants(t, l.Refuse(a.EnrolEntry(v)), "payload.key", "enrolled already")
	wants(t, l.Refuse(b.EnrolEntry(l.Voucher("batch-1", 3, nil))), "another voucher")
	l.Must(b.EnrolEntry(v))
	wants(t, l.Refuse(c.EnrolEntry(v)), "uses", "used up")
	wants(t, l.Refuse(c.Entry(ledger.TypeCapacity, c.Capacity(1))), "no enrolled node")
	if got := l.State().Node(a.ID).Labels["site"]; got != "a" {
		t.Errorf("label is %q", got)
	}
}

// TestExpiredVoucher: what counts is the time of the block in which the node
// would enrol. The same voucher lets one in before its end and none after it.
func TestExpiredVoucher(t *testing.T) {
	l := ledgertest.New(t)
	ends := l.NowMs() + 3_600_000
	v := l.ExpiringVoucher("hour", 9, ends)
	for _, c := range []struct {
		about, node string
		at          int64 // milliseconds after the end
		in          bool
	}{
		{"an hour before", "a", -3_600_000, true},
		{"the last moment", "b", -1, true},
		{"its end", "c", 0, false},
		{"a day later", "d", 86_400_000, false},
	} {
		n := l.NewNode(c.node)
		l.Pass(ends + c.at - l.NowMs())
		if c.in {
			if out := l.Block(n.EnrolEntry(v)); len(out.Accepted) != 1 {
				t.Errorf("%s: refused: %v", c.about, out.Refused[0])
			}
			continue
		}
		got := l.Refuse(n.EnrolEntry(v))
		wants(t, got, "payload.voucher.payload.expiresMs: is 2049-03-22T05:26:40Z: the voucher has expired by the ledger's time")
		// One of the kind that has no end is as good as ever.
		l.Must(n.EnrolEntry(l.Voucher("ever-"+c.node, 1, nil)))
	}
	if got := len(l.State().Nodes()); got != 4 {
		t.Errorf("%d nodes", got)
	}
	// With an end it is another voucher than without, whatever it is called.
	wants(t, l.Refuse(l.NewNode("e").EnrolEntry(l.ExpiringVoucher("ever-c", 1, l.NowMs()+1000))), "another voucher")
	// A snapshot has all of it: a use counts after it as before.
	s, err := ledger.OpenSnapshot(l.State().Snapshot())
	if err != nil || s.StateRoot() != l.State().StateRoot() {
		t.Errorf("snapshot: %v", err)
	}
}

func TestActedMustHaveBeen(t *testing.T) {
	l := ledgertest.New(t)
	n := l.Join("n", 1024)
	c := n.Capacity(2048)
	c.Acted.Root = strings.Repeat("0", 64)
	wants(t, l.Refuse(n.Entry(ledger.TypeCapacity, c)), "acted.root", "forked")
	c = n.Capacity(2048)
	c.Acted.Size--
	wants(t, l.Refuse(n.Entry(ledger.TypeCapacity, c)), "acted.size", "no block")
	old := l.Acted()
	l.Must(l.Register("shop", 1, nil))
	c.Acted = old
	l.Must(n.Entry(ledger.TypeCapacity, c))
}

func TestSameAgainAddsNothing(t *testing.T) {
	l := ledgertest.New(t)
	e := l.Register("shop", 1, nil)
	i := l.Must(e)
	size := l.State().Size()
	out := l.Block(e)
	refused, ok := out.Refused[0].(*ledger.Refused)
	if !ok || refused.Index != i || len(out.Leaves) != 0 || l.State().Size() != size {
		t.Errorf("outcome is %+v", out)
	}
	// Signed again, in another order: still the same that the same people said.
	again := l.Sign(ledger.TypeDeployment, l.Spec("shop", 1, nil), "security2", "author", "security1")
	if refused, ok := l.Block(again).Refused[0].(*ledger.Refused); !ok || refused.Index != i {
		t.Errorf("refusal is %v", refused)
	}
	// One more signer is somebody who has not said it yet: the rules answer.
	more := l.Sign(ledger.TypeDeployment, l.Spec("shop", 1, nil), "security2", "author", "security1", "operator")
	wants(t, l.Refuse(more), "payload.metadata.version", "has version 1")
	wants(t, l.Refuse(append([]byte(" "), l.Register("x", 1, nil)...)), "canonical form")
}

func TestRecordsChain(t *testing.T) {
	l := ledgertest.New(t)
	n, m := l.Join("n", 4096), l.Join("m", 4096)
	id := l.Must(l.Register("shop", 1, nil))
	l.Pass(20_000)
	claim := l.Must(n.Claim(id))
	first := n.Record(claim, "match", "ok", nil)
	wants(t, l.Refuse(m.Record(claim, "match", "ok", nil)), "payload.claim", "belongs to node")
	l.Must(first)
	gap := ledger.Record{Claim: claim, Seq: 2, Previous: ledger.HashEntry(first), Phase: "plan", Result: "ok", Acted: l.Acted()}
	wants(t, l.Refuse(n.Entry(ledger.TypeRecord, gap)), "payload.seq", "want 1")
	gap.Seq, gap.Previous = 1, ledgertest.Digest("other")
	wants(t, l.Refuse(n.Entry(ledger.TypeRecord, gap)), "payload.previous")
	gap.Previous = ledger.HashEntry(first)
	l.Must(n.Entry(ledger.TypeRecord, gap))
}
