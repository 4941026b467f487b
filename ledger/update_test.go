// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/sign"
)

// TestVersions: an order in which each version has one place.
func TestVersions(t *testing.T) {
	order := []string{"junk", "0.1", "0.1.0", "0.2", "0.10", "1.0", "1.4", "1.4.0", "1.4.0.1", "1.4.9", "1.4.10", "1.14", "2.0"}
	for i, a := range order {
		for j, b := range order {
			if got, want := ledger.CompareVersions(a, b), min(max(i-j, -1), 1); got != want {
				t.Errorf("%s against %s: %d, want %d", a, b, got, want)
			}
		}
	}
	for _, bad := range []string{"", "1", "1.", ".1", "01.2", "1.02", "1.2.3.4.5", "v1.2", "1.2-rc1", "1.2\n", "1.1234567890", "１.2"} {
		if ledger.ValidVersion(bad) {
			t.Errorf("%q is taken for a version", bad)
		}
	}
}

// TestSoftwareRules has one line for each way in which an entry about the
// node's software is refused because of what the ledger has already.
func TestSoftwareRules(t *testing.T) {
	l := ledgertest.New(t)
	n := l.Join("n", 4096)
	x, y, z := l.Must(l.NodeRelease("1.0", "a", "b")), l.Must(l.NodeRelease("1.1", "a")), l.Must(l.NodeRelease("1.2", "a"))
	sign := func(p ledger.Rollout) []byte { return l.Sign(ledger.TypeRollout, p, "release") }

	wants(t, l.Refuse(l.Sign(ledger.TypeNodeRelease, l.Release("1.3", "a"), "author")), "signatures", "release")
	wants(t, l.Refuse(l.Sign(ledger.TypeRollout, l.Rollout(x, "1.0"), "author")), "signatures", "release")
	wants(t, l.Refuse(n.Entry(ledger.TypeRollout, l.Rollout(x, "1.0"))), "signatures")
	again := l.Release("1.0", "a")
	again.Notes = "other bytes"
	wants(t, l.Refuse(l.Sign(ledger.TypeNodeRelease, again, "release")), "payload.version", "for ever")
	wants(t, l.Refuse(sign(l.Rollout(x+1000, "1.0"))), "payload.release", "nothing was released")
	wants(t, l.Refuse(sign(l.Rollout(x, "1.1"))), "payload.version", "released 1.0")

	first := l.Must(sign(l.Rollout(x, "1.0")))
	up := l.Rollout(y, "1.1")
	up.Floor = "1.1"
	second := l.Must(sign(up))
	if f := l.State().Floor(); f != "1.1" {
		t.Errorf("floor %q", f)
	}
	wants(t, l.Refuse(sign(l.Rollout(x, "1.0"))), "already", "entry")
	down := l.Rollout(x, "1.0")
	down.PaceMs = 9
	wants(t, l.Refuse(sign(down)), "payload.version", "less than 1.1")
	lower := l.Rollout(z, "1.2")
	lower.Floor = "1.0"
	wants(t, l.Refuse(sign(lower)), "payload.floor", "never goes down")

	say := func(p ledger.Update) []byte {
		p.Acted = l.Acted()
		return n.Entry(ledger.TypeUpdate, p)
	}
	wants(t, l.Refuse(say(ledger.Update{Rollout: x, Version: "1.0", Running: "0.1", Result: ledger.UpdateTrying})), "payload.rollout", "no rollout")
	wants(t, l.Refuse(say(ledger.Update{Rollout: first, Version: "1.1", Running: "0.1", Result: ledger.UpdateTrying})), "payload.version", "rolls 1.0 out")
	wants(t, l.Refuse(say(ledger.Update{Rollout: second, Version: "1.1", Running: "1.0", Result: ledger.UpdateBlessed})), "payload.running")
	wants(t, l.Refuse(say(ledger.Update{Rollout: second, Version: "1.1", Running: "1.1", Result: ledger.UpdateRolledBack})), "payload.running")
	foreign := ledger.Update{Rollout: second, Version: "1.1", Running: "1.0", Result: ledger.UpdateTrying, Acted: ledger.Acted{Size: l.Acted().Size, Root: strings.Repeat("0", 64)}}
	wants(t, l.Refuse(n.Entry(ledger.TypeUpdate, foreign)), "acted.root", "forked")
	foreign.Acted = l.Acted()
	wants(t, l.Refuse(l.Sign(ledger.TypeUpdate, foreign, "release")), "signatures", "no enrolled node")

	// The last word of a node counts, once.
	count := func(trying, blessed, failed int64) {
		t.Helper()
		r := l.State().Rollouts()[1]
		if r.Trying != trying || r.Blessed != blessed || r.Failed != failed {
			t.Errorf("%+v, want %d trying, %d blessed, %d failed", r, trying, blessed, failed)
		}
	}
	l.Must(say(ledger.Update{Rollout: second, Version: "1.1", Running: "1.0", Result: ledger.UpdateTrying}))
	count(1, 0, 0)
	// After the trial the node is another enrolment of the same name.
	n2 := l.NewNode("n")
	l.Must(n2.EnrolEntry(l.Voucher("again", 1, nil)))
	l.Must(n2.Entry(ledger.TypeUpdate, ledger.Update{Rollout: second, Version: "1.1", Running: "1.0", Result: ledger.UpdateRolledBack, Reason: "agent", Acted: l.Acted()}))
	count(0, 0, 1)
	if u := l.State().Updated(second, "n"); u == nil || u.Node != n2.ID || u.Reason != "agent" {
		t.Errorf("%+v", u)
	}

	// A root that names no role for releases takes none.
	old := l.Root
	old.Version, old.Require = 2, map[string][]string{"root": {"root"}, "deployment": {"author"}, "stop": {"author"}, "voucher": {"operator"}}
	l.Must(l.Sign(ledger.TypeRoot, old, "root"))
	wants(t, l.Refuse(l.NodeRelease("1.3", "a")), "payloadType", "require.release")
}

// TestRolloutIsNotBegunAnew: a stranger who takes a rollout from the log and adds
// a signature to it changes nothing.
func TestRolloutIsNotBegunAnew(t *testing.T) {
	l := ledgertest.New(t)
	old, now := l.Must(l.NodeRelease("1.1", "b")), l.Must(l.NodeRelease("1.2", "b"))
	first := l.Sign(ledger.TypeRollout, l.Rollout(old, "1.1"), "release")
	l.Must(first)
	l.Must(l.Sign(ledger.TypeRollout, l.Rollout(now, "1.2"), "release"))
	env, err := sign.DecodeEnvelope(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := env.Add(ledgertest.Key(t)); err != nil {
		t.Fatal(err)
	}
	again, err := env.Encode()
	if err != nil {
		t.Fatal(err)
	}
	wants(t, l.Refuse(again), "payload", "rolls out already", "another signature")
	if got, why := l.State().NextUpdate(ledger.NodeFacts{Name: "n", Board: "b", Version: "1.0"}, l.NowMs()); got == nil || got.Version != "1.2" {
		t.Errorf("a node with 1.0 is to take %+v, %q", got, why)
	}
	slower := l.Rollout(old, "1.1")
	slower.PaceMs = 1
	l.Must(l.Sign(ledger.TypeRollout, slower, "release")) // those who may can go back
	if got, why := l.State().NextUpdate(ledger.NodeFacts{Name: "n", Board: "b", Version: "1.0"}, l.NowMs()); got == nil || got.Version != "1.1" {
		t.Errorf("a node with 1.0 is to take %+v, %q", got, why)
	}
}

// TestChunkedRelease: a release may bind lists of chunks, which a node is told
// of; one that does not stands on the ledger as it always did.
func TestChunkedRelease(t *testing.T) {
	l := ledgertest.New(t)
	wants(t, l.Refuse(l.Sign(ledger.TypeChunkedRelease, ledgertest.Chunked(l.Release("1.1", "a"), func(i ledger.ReleaseImage) string { return i.Digest }), "author")), "signatures", "release")
	old, now := l.Must(l.NodeRelease("1.1", "a", "b")), l.Must(l.ChunkedRelease("1.2", "a", "b"))
	wants(t, l.Refuse(l.NodeRelease("1.2", "a")), "payload.version", "for ever")
	wants(t, l.Refuse(l.ChunkedRelease("1.1", "a")), "payload.version", "for ever")
	for _, c := range []struct {
		release         int64
		version, chunks string
	}{{old, "1.1", ""}, {now, "1.2", ledgertest.Digest("list of " + ledgertest.Digest("uki b 1.2"))}} {
		l.Must(l.Sign(ledger.TypeRollout, l.Rollout(c.release, c.version), "release"))
		got, why := l.State().NextUpdate(ledger.NodeFacts{Name: "n", Board: "b", Version: "1.0"}, l.NowMs())
		if got == nil || got.Version != c.version || got.Chunks != c.chunks || got.Image.Board != "b" {
			t.Errorf("%+v %q, want %s", got, why, c.chunks)
		}
		for _, r := range l.State().Releases() {
			row, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			if r.ID == c.release && strings.Contains(string(row), `"chunks"`) != (c.chunks != "") {
				t.Errorf("the row is %s", row)
			}
		}
	}
}

// TestSoftwareValues has one line for each value that these entries must not
// have, whatever the ledger has. Each payload is good without it.
func TestSoftwareValues(t *testing.T) {
	l := ledgertest.New(t)
	acted := ledger.Acted{Size: 2, Root: strings.Repeat("ab", 32)}
	long := strings.Repeat("x", 8<<10+1)
	release := func() *ledger.NodeRelease { r := l.Release("1.0", "a", "b"); return &r }
	chunked := func() *ledger.ChunkedRelease {
		r := ledgertest.Chunked(l.Release("1.0", "a", "b"), func(i ledger.ReleaseImage) string { return i.Digest })
		return &r
	}
	rollout := func() *ledger.Rollout { r := l.Rollout(1, "1.0"); return &r }
	update := func() *ledger.Update {
		return &ledger.Update{Rollout: 1, Version: "1.0", Running: "0.9", Result: ledger.UpdateTrying, Acted: acted}
	}
	for _, c := range []struct {
		payload any
		field   string
	}{
		{change(release, func(p *ledger.NodeRelease) { p.Version = "v1" }), "version"},
		{change(release, func(p *ledger.NodeRelease) { p.Images = nil }), "images"},
		{change(release, func(p *ledger.NodeRelease) { p.Images = []ledger.ReleaseImage{} }), "images"},
		{change(release, func(p *ledger.NodeRelease) { p.Images[0].Board = "A/.." }), "images[0].board"},
		{change(release, func(p *ledger.NodeRelease) { p.Images[1].Board = "a" }), "images[1].board"},
		{change(release, func(p *ledger.NodeRelease) { p.Images[0], p.Images[1] = p.Images[1], p.Images[0] }), "images[1].board"},
		{change(release, func(p *ledger.NodeRelease) { p.Images[1].Digest = "sha256:AB" }), "images[1].digest"},
		{change(release, func(p *ledger.NodeRelease) { p.Images[1].Size = 0 }), "images[1].size"},
		{change(release, func(p *ledger.NodeRelease) { p.Images[1].Size = 1<<30 + 1 }), "images[1].size"},
		{change(release, func(p *ledger.NodeRelease) { p.Mirrors = []string{"ftp://x"} }), "mirrors[0]"},
		{change(release, func(p *ledger.NodeRelease) { p.Mirrors = []string{"http://u:p@x"} }), "mirrors[0]"},
		{change(release, func(p *ledger.NodeRelease) { p.Mirrors = make([]string, 17) }), "mirrors"},
		{change(release, func(p *ledger.NodeRelease) { p.Notes = long }), "notes"},
		{change(chunked, func(p *ledger.ChunkedRelease) { p.Version = "v1" }), "version"},
		{change(chunked, func(p *ledger.ChunkedRelease) { p.Images = []ledger.ChunkedImage{} }), "images"},
		{change(chunked, func(p *ledger.ChunkedRelease) { p.Images[1].Size = 0 }), "images[1].size"},
		{change(chunked, func(p *ledger.ChunkedRelease) { p.Images[0].Chunks = "" }), "images[0].chunks"},
		{change(chunked, func(p *ledger.ChunkedRelease) { p.Images[1].Chunks = "sha256:AB" }), "images[1].chunks"},
		{change(rollout, func(p *ledger.Rollout) { p.Release = -1 }), "release"},
		{change(rollout, func(p *ledger.Rollout) { p.Version = "1" }), "version"},
		{change(rollout, func(p *ledger.Rollout) { p.Labels = map[string]string{"a b": ""} }), "labels"},
		{change(rollout, func(p *ledger.Rollout) { p.Waves = []int64{} }), "waves"},
		{change(rollout, func(p *ledger.Rollout) { p.Waves = []int64{50} }), "waves"},
		{change(rollout, func(p *ledger.Rollout) { p.Waves = []int64{0, 100} }), "waves[0]"},
		{change(rollout, func(p *ledger.Rollout) { p.Waves = []int64{50, 50, 100} }), "waves[1]"},
		{change(rollout, func(p *ledger.Rollout) { p.Waves, p.PaceMs = []int64{50, 100}, 0 }), "paceMs"},
		{change(rollout, func(p *ledger.Rollout) { p.PaceMs = -1 }), "paceMs"},
		{change(rollout, func(p *ledger.Rollout) { p.MaxFailed = 0 }), "maxFailed"},
		{change(rollout, func(p *ledger.Rollout) { p.Floor = "x" }), "floor"},
		{change(rollout, func(p *ledger.Rollout) { p.Floor = "1.1" }), "floor"},
		{change(rollout, func(p *ledger.Rollout) { p.Floor, p.Labels = "1.0", map[string]string{"a": "b"} }), "floor"},
		{change(update, func(p *ledger.Update) { p.Rollout = -1 }), "rollout"},
		{change(update, func(p *ledger.Update) { p.Version = "" }), "version"},
		{change(update, func(p *ledger.Update) { p.Running = "junk" }), "running"},
		{change(update, func(p *ledger.Update) { p.Result = "fine" }), "result"},
		{change(update, func(p *ledger.Update) { p.Reason = long }), "reason"},
		{change(update, func(p *ledger.Update) { p.Acted.Root = "x" }), "acted.root"},
	} {
		kind := map[string]string{"*ledger.NodeRelease": ledger.TypeNodeRelease, "*ledger.ChunkedRelease": ledger.TypeChunkedRelease, "*ledger.Rollout": ledger.TypeRollout, "*ledger.Update": ledger.TypeUpdate}[fmt.Sprintf("%T", c.payload)]
		if _, err := ledger.Decode(l.Sign(kind, c.payload, "release")); err == nil || !strings.Contains(err.Error(), "payload."+c.field+":") && !strings.Contains(err.Error(), "payload."+c.field+" ") {
			t.Errorf("%T without a good %s: %v", c.payload, c.field, err)
		}
	}
	for kind, good := range map[string]any{ledger.TypeNodeRelease: release(), ledger.TypeChunkedRelease: chunked(), ledger.TypeRollout: rollout(), ledger.TypeUpdate: update()} {
		if _, err := ledger.Decode(l.Sign(kind, good, "release")); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestNextUpdate: which release a node tries now, or why none.
func TestNextUpdate(t *testing.T) {
	l := ledgertest.New(t)
	edge := map[string]string{"site": "edge"}
	facts := ledger.NodeFacts{Name: "n", Labels: edge, Board: "a", Version: "1.0"}
	next := func(f ledger.NodeFacts) (string, string) {
		t.Helper()
		target, why := l.State().NextUpdate(f, l.NowMs())
		if (target == nil) != (why != "") {
			t.Fatalf("%+v with reason %q", target, why)
		}
		if target == nil {
			return "", why
		}
		return target.Version, ""
	}
	is := func(f ledger.NodeFacts, version, why string) {
		t.Helper()
		got, said := next(f)
		if got != version || !strings.Contains(said, why) || (why == "") != (said == "") {
			t.Errorf("next is %q (%q), want %q (%q)", got, said, version, why)
		}
	}
	is(facts, "", "no rollout")
	y, z := l.Must(l.NodeRelease("1.1", "a")), l.Must(l.NodeRelease("1.2", "a", "b"))
	is(facts, "", "no rollout") // a release alone is nobody's business
	all := l.Must(l.Sign(ledger.TypeRollout, l.Rollout(y, "1.1"), "release"))
	is(facts, "1.1", "")
	is(change1(facts, func(f *ledger.NodeFacts) { f.Version = "1.1" }), "", "runs 1.1 already")
	is(change1(facts, func(f *ledger.NodeFacts) { f.Version = "1.2" }), "", "go back by themselves only")
	is(change1(facts, func(f *ledger.NodeFacts) { f.Board = "c" }), "", "no image for board c")
	is(change1(facts, func(f *ledger.NodeFacts) { f.Tried = []int64{all} }), "", "only a new rollout")
	// The newest rollout that is for a node counts.
	some := l.Rollout(z, "1.2")
	some.Labels = edge
	some.MaxFailed = 2
	l.Must(l.Sign(ledger.TypeRollout, some, "release"))
	is(facts, "1.2", "")
	is(change1(facts, func(f *ledger.NodeFacts) { f.Labels = map[string]string{"site": "core"} }), "1.1", "")
	is(change1(facts, func(f *ledger.NodeFacts) { f.Labels = nil }), "1.1", "")
	// Who failed does not try again; when enough have, nobody begins.
	n, m := l.Join("n", 1024), l.Join("m", 1024)
	rollout := l.State().Rollouts()[1].ID
	fail := func(n *ledgertest.Node, result string) {
		l.Must(n.Entry(ledger.TypeUpdate, ledger.Update{Rollout: rollout, Version: "1.2", Running: "1.0", Result: result, Acted: l.Acted()}))
	}
	fail(n, ledger.UpdateTrying)
	is(facts, "1.2", "") // it may have been cut off
	fail(n, ledger.UpdateRolledBack)
	is(facts, "", "rolled-back")
	other := change1(facts, func(f *ledger.NodeFacts) { f.Name = "other" })
	is(other, "1.2", "")
	fail(m, ledger.UpdateFailed)
	is(other, "", "halted")
	// A new rollout of the same release is a new chance.
	some.PaceMs++
	l.Must(l.Sign(ledger.TypeRollout, some, "release"))
	is(facts, "1.2", "")
	is(other, "1.2", "")
}

// change1 is a copy with a change.
func change1[T any](v T, edit func(*T)) T {
	edit(&v)
	return v
}

// TestWaves: each node has its place, about as many in each wave as it says,
// and none begins before its wave.
func TestWaves(t *testing.T) {
	l := ledgertest.New(t)
	y := l.Must(l.NodeRelease("1.1", "a"))
	p := l.Rollout(y, "1.1")
	p.Waves, p.PaceMs = []int64{10, 50, 100}, 60_000
	l.Must(l.Sign(ledger.TypeRollout, p, "release"))
	r := l.State().Rollouts()[0]
	const nodes = 2000
	said := map[string]string{} // why a node waits, which is not to change while it does: it is logged when it does
	began := func(afterMs int64) (n int) {
		for i := range nodes {
			f := ledger.NodeFacts{Name: fmt.Sprint("n", i), Board: "a", Version: "1.0"}
			target, why := l.State().NextUpdate(f, r.SinceMs+afterMs)
			if target != nil {
				n++
			} else if before := said[f.Name]; !strings.Contains(why, "its wave of rollout") || before != "" && before != why {
				t.Fatalf("%q, %q before", why, before)
			}
			said[f.Name] = why
			if (target != nil) != (r.FromMs(f.Name) <= r.SinceMs+afterMs) {
				t.Fatalf("node %d: two answers", i)
			}
		}
		return n
	}
	for _, c := range []struct {
		afterMs  int64
		min, max int
	}{{0, 140, 260}, {59_999, 140, 260}, {60_000, 850, 1150}, {119_999, 850, 1150}, {120_000, nodes, nodes}} {
		if n := began(c.afterMs); n < c.min || n > c.max {
			t.Errorf("after %d ms %d of %d nodes have begun, want %d to %d", c.afterMs, n, nodes, c.min, c.max)
		}
	}
}
