// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
)

// told is one entry about claim 10, as the log would have it.
func told(index int64, key string, payload any) Item {
	return Item{Index: index, Kind: "entry", Claim: 10, Signers: []Signer{{key, "node n", ""}},
		entry: &ledger.Entry{Payload: payload, Raw: fmt.Append(nil, "entry ", index)}}
}

// TestStoriesThatApplyWouldNotWrite: the auditor follows the records by
// itself. No log that folds has these; an auditor that believed the fold would
// be no second look.
func TestStoriesThatApplyWouldNotWrite(t *testing.T) {
	hash := func(index int64) string { return ledger.HashEntry(fmt.Append(nil, "entry ", index)) }
	story := func() ([]Item, *ledger.Grant) {
		return []Item{
				told(11, "N", &ledger.Record{Claim: 10, Phase: "detect", Result: "ok"}),
				told(12, "N", &ledger.Record{Claim: 10, Seq: 1, Previous: hash(11), Phase: "match", Result: "ok"}),
				told(13, "N", &ledger.Close{Claim: 10, Records: 2, Result: "stopped"}),
			},
			&ledger.Grant{Index: 10, Node: "N", Records: 2, LastRecord: hash(12)}
	}
	for _, c := range []struct {
		name string
		edit func(items []Item, g *ledger.Grant) []Item
		says string
	}{
		{"as it should be", func(items []Item, _ *ledger.Grant) []Item { return items }, ""},
		{"of another claim", func(items []Item, _ *ledger.Grant) []Item {
			other := told(14, "M", &ledger.Record{Claim: 20})
			other.Claim = 20
			return append(items, other)
		}, ""},
		{"after the close", func(items []Item, _ *ledger.Grant) []Item {
			return append(items, told(14, "N", &ledger.Renew{Claim: 10}))
		}, "entry 14: entry after claim 10 was closed by entry 13"},
		{"signed by another node", func(items []Item, _ *ledger.Grant) []Item {
			items[1].Signers[0].Key = "M"
			return items
		}, "entry 12: signed by M"},
		{"a record left out", func(items []Item, _ *ledger.Grant) []Item {
			items[1].entry.Payload.(*ledger.Record).Seq = 2
			return items
		}, "entry 12: record 2 of claim 10"},
		{"chained to another", func(items []Item, _ *ledger.Grant) []Item {
			items[1].entry.Payload.(*ledger.Record).Previous = hash(7)
			return items
		}, "entry 12: record 1 of claim 10 follows"},
		{"the close counts more", func(items []Item, _ *ledger.Grant) []Item {
			items[2].entry.Payload.(*ledger.Close).Records = 3
			return items
		}, "entry 13: close counts 3 records, the log has 2"},
		{"the state counts more", func(items []Item, g *ledger.Grant) []Item {
			g.Records = 3
			return items
		}, "claim 10: the state counts 3 records"},
		{"the state has another end", func(items []Item, g *ledger.Grant) []Item {
			g.LastRecord = hash(11)
			return items
		}, "claim 10: the state counts 2 records"},
	} {
		items, g := story()
		r := &Report{Story: &Story{Items: c.edit(items, g)}}
		sum := r.claim(&ledger.Deployment{Spec: &spec.Deployment{}}, g)
		if c.says == "" && (!r.OK() || sum.Records != 2) || c.says != "" && (len(r.Discrepancies) != 1 || !strings.HasPrefix(r.Discrepancies[0], c.says)) {
			t.Errorf("%s: %q, want %q", c.name, r.Discrepancies, c.says)
		}
	}
}

// TestStateThatLies: what the state says of a deployment is held against the
// entries once more.
func TestStateThatLies(t *testing.T) {
	l := ledgertest.New(t)
	id := l.Must(l.Register("shop", 1, nil))
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Dir}, KeepEntries: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		edit func(d *ledger.Deployment, st *Story)
		says string
	}{
		{"nothing", func(*ledger.Deployment, *Story) {}, ""},
		{"another digest", func(d *ledger.Deployment, _ *Story) { d.Digest = ledgertest.Digest("evil") }, "the spec has digest"},
		{"a role not filled", func(d *ledger.Deployment, _ *Story) {
			d.Roles = maps.Clone(d.Roles)
			d.Roles["security"] = d.Roles["security"][:1]
		}, "role security has 1 of 2 signatures"},
		{"a role filled by another", func(d *ledger.Deployment, _ *Story) {
			d.Roles = maps.Clone(d.Roles)
			d.Roles["author"] = []string{"SHA256:x"}
		}, "the state counts [\"SHA256:x\"]"},
		{"a role that nobody asked for", func(d *ledger.Deployment, _ *Story) {
			d.Roles = maps.Clone(d.Roles)
			d.Roles["operator"] = []string{"SHA256:x"}
		}, "for role operator, which was not asked for"},
		{"a required role not filled", func(d *ledger.Deployment, _ *Story) {
			s := *d.Spec
			s.Security.RequiredRoles = []string{"operator"}
			d.Spec = &s
		}, "role operator has 0 of 1 signatures"},
		{"signed by nobody known", func(_ *ledger.Deployment, st *Story) {
			st.Items[0].Kind = "record"
			st.Items[0].Signers = []Signer{{"SHA256:x", "", "not of a role"}}
		}, "is signed by SHA256:x, which is no node"},
	} {
		st, err := collect(t.Context(), c.State(), c.Entries(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		d := *c.State().Deployment(id)
		tt.edit(&d, st)
		r := &Report{Story: st, proof: map[int64]string{}, claimed: map[int64]string{}}
		if err := r.proofs(t.Context(), c.Entries(), nil); err != nil {
			t.Fatal(err)
		}
		r.version(c.State(), &d)
		if tt.says == "" && !r.OK() || tt.says != "" && (len(r.Discrepancies) != 1 || !strings.Contains(r.Discrepancies[0], tt.says)) {
			t.Errorf("%s: %q, want %q", tt.name, r.Discrepancies, tt.says)
		}
	}
}

// neighbour proves of each entry that the one before it is in the log.
type neighbour struct{ ledger.Entries }

func (n neighbour) Prove(ctx context.Context, i int64) (ledger.EntryProof, error) {
	return n.Entries.Prove(ctx, i-1)
}

// none has no proof.
type none struct{ ledger.Entries }

func (none) Prove(context.Context, int64) (ledger.EntryProof, error) {
	return ledger.EntryProof{}, ledger.ErrForged
}

// TestProofOfAnother: an entry whose proof is that of another one, or that has
// none, is found, and not counted as proven.
func TestProofOfAnother(t *testing.T) {
	l := ledgertest.New(t)
	l.Must(l.Register("shop", 1, nil))
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Dir}, KeepEntries: true})
	if err == nil {
		err = c.Sync(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	st, err := collect(t.Context(), c.State(), c.Entries(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		from prover
		says string
	}{{c.Entries(), ""}, {neighbour{c.Entries()}, "entry "}, {none{c.Entries()}, "no proof that it is in the tree"}} {
		r := &Report{Story: st, proof: map[int64]string{}, claimed: map[int64]string{}}
		if err := r.proofs(t.Context(), tt.from, nil); err != nil {
			t.Fatal(err)
		}
		if (tt.says == "") != r.OK() || (tt.says == "") != (r.Proofs > 0) || !strings.Contains(strings.Join(r.Discrepancies, "\n"), tt.says) {
			t.Errorf("%q, want %q", r.Discrepancies, tt.says)
		}
	}
}

// TestTwoPlansOfOneSpec: two nodes with one kind of hypervisor have to come to
// one plan.
func TestTwoPlansOfOneSpec(t *testing.T) {
	for _, evil := range []bool{false, true} {
		l := ledgertest.New(t)
		nodes := []*ledgertest.Node{l.Join("n1", 4096), l.Join("n2", 4096)}
		id := l.Must(l.Register("shop", 1, func(d *spec.Deployment) { d.Placement.Replicas = 2 }))
		l.Pass(40_000)
		for i, n := range nodes {
			claim := l.Must(n.Claim(id))
			plan := ledgertest.Digest("plan")
			if evil && i == 1 {
				plan = ledgertest.Digest("evil")
			}
			for _, p := range ledger.Phases() {
				l.Must(n.Record(claim, p, "ok", map[string]string{"plan": plan}))
			}
		}
		r, err := Run(t.Context(), Config{Root: l.RootEnv, Ledger: l.Dir, Deployment: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		if evil == r.OK() || len(r.Claims) != 2 || evil && !strings.Contains(strings.Join(r.Discrepancies, "\n"), "another node with qemu had "+ledgertest.Digest("plan")) {
			t.Errorf("evil %v: %d claims, %q", evil, len(r.Claims), r.Discrepancies)
		}
	}
}

// TestRunSaysWhatItCannot: what cannot be looked at is an error and no report.
func TestRunSaysWhatItCannot(t *testing.T) {
	l := ledgertest.New(t)
	l.Must(l.Register("shop", 1, nil))
	other := ledgertest.New(t)
	for name, c := range map[string]Config{
		"no root":         {Ledger: l.Dir, Deployment: "shop"},
		"no ledger":       {Root: l.RootEnv, Ledger: t.TempDir(), Deployment: "shop"},
		"another's root":  {Root: other.RootEnv, Ledger: l.Dir, Deployment: "shop"},
		"no deployment":   {Root: l.RootEnv, Ledger: l.Dir, Deployment: "ship"},
		"nobody there":    {Root: l.RootEnv, Ledger: "http://127.0.0.1:1", Deployment: "shop"},
		"index of a root": {Root: l.RootEnv, Ledger: l.Dir, Deployment: "0"},
	} {
		if r, err := Run(t.Context(), c); err == nil || r != nil {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}
