// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/audit"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
)

// agreement is a log on which roots of trust change and a key is revoked, around a
// deployment with an update, a claim by the second in rank, and a stop.
type agreement struct {
	*ledgertest.Log
	revoked, first, second, claim, stop int64
}

func agree(t *testing.T) agreement {
	l := agreement{Log: ledgertest.New(t)}
	root := func(version int64, edit func(r *ledger.Root)) {
		t.Helper()
		l.Root.Version = version
		l.Root.Policy.Roles = maps.Clone(l.Root.Policy.Roles)
		edit(&l.Root)
		l.Must(l.Sign(ledger.TypeRoot, l.Root, "root"))
	}
	nodes := []*ledgertest.Node{l.Join("n1", 4096), l.Join("n2", 4096), l.Join("small", 64)}
	root(2, func(r *ledger.Root) { r.Policy.Roles["security"] = l.Role(1, "security1", "security2") })
	l.revoked = l.Must(l.Sign(ledger.TypeRevoke, ledger.Revoke{Key: l.Keys["security1"].PublicKey(), Reason: "lost"}, "root"))
	l.first = l.Must(l.Sign(ledger.TypeDeployment, l.Spec("shop", 1, nil), "author", "security1", "security2", "release"))
	root(3, func(r *ledger.Root) { r.Policy.Roles["author"] = l.Role(1, "operator") })
	l.second = l.Must(l.Sign(ledger.TypeDeployment, l.Spec("shop", 2, func(d *spec.Deployment) { d.Security.RequiredRoles = []string{"release"} }), "author", "operator", "security2", "release"))
	l.Pass(25_000)
	behind := l.State().Candidates(l.State().Deployment(l.second))[1].Node
	for _, n := range nodes {
		if n.ID == behind {
			l.claim = l.Must(n.Claim(l.second))
		}
	}
	l.stop = l.Must(l.Sign(ledger.TypeStop, ledger.Stop{Deployment: l.second, Name: "shop", Reason: "done"}, "operator", "author"))
	return l
}

// TestWhoAgreedUnderWhichPolicy: of what people signed, the story says under which
// root of trust, how many each role needed and who filled it, as Apply counted; of
// a claim, why its node was allowed then. History, audit and export agree.
func TestWhoAgreedUnderWhichPolicy(t *testing.T) {
	l := agree(t)
	id := func(names ...string) (all []string) {
		for _, n := range names {
			all = append(all, l.Keys[n].KeyID())
		}
		return all
	}
	since := l.State().Deployment(l.second).SinceMs
	want := map[int64]audit.Item{
		l.first: {
			Policies: []audit.Policy{{RootVersion: 2, Replaces: -1, Roles: []audit.Filled{{"author", 1, id("author")}, {"security", 1, id("security2")}}}},
			Signers: []audit.Signer{{id("author")[0], "author", ""}, {id("security1")[0], "", fmt.Sprintf("revoked by entry %d", l.revoked)},
				{id("security2")[0], "security", ""}, {id("release")[0], "", "not of a role"}},
		},
		l.second: {
			Policies: []audit.Policy{
				{RootVersion: 3, Replaces: -1, Roles: []audit.Filled{{"author", 1, id("operator")}, {"release", 1, id("release")}, {"security", 1, id("security2")}}},
				{RootVersion: 2, Replaces: l.first, Roles: []audit.Filled{{"author", 1, id("author")}, {"security", 1, id("security2")}}},
			},
			Signers: []audit.Signer{{id("author")[0], "author of root version 2", ""}, {id("operator")[0], "author", ""}, {id("security2")[0], "security", ""}, {id("release")[0], "release", ""}},
		},
		l.claim: {
			Policies: []audit.Policy{},
			Turn:     &ledger.Turn{Rank: 1, Eligible: 2, Open: 1, SinceMs: since, WindowMs: 10_000, Window: 1, FromMs: since + 10_000, ClaimedIn: 2},
		},
		l.stop: {
			Policies: []audit.Policy{{RootVersion: 3, Replaces: -1, Roles: []audit.Filled{{"author", 1, id("operator")}}}},
			Signers:  []audit.Signer{{id("operator")[0], "author", ""}, {id("author")[0], "", "not of a role"}},
		},
	}
	r, err := audit.Run(t.Context(), audit.Config{Root: l.RootEnv, Ledger: l.Dir, Deployment: "shop"})
	if err != nil || !r.OK() {
		t.Fatal(err, r)
	}
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Dir}, KeepEntries: true, Turns: true})
	if err == nil {
		err = c.Sync(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	st, err := audit.History(t.Context(), c, "shop")
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := r.Export(dir, key); err != nil {
		t.Fatal(err)
	}
	for index, w := range want {
		found := 0
		for _, it := range append(append(r.Story.Items, st.Items...), exported(t, dir, index)) {
			if it.Index != index {
				continue
			}
			found++
			signers := it.Signers
			if w.Signers == nil {
				signers = nil
			}
			if !reflect.DeepEqual(it.Policies, w.Policies) || !reflect.DeepEqual(signers, w.Signers) || !reflect.DeepEqual(it.Turn, w.Turn) {
				t.Errorf("entry %d, place %d:\n%+v %+v %+v, want\n%+v %+v %+v", index, found, it.Policies, signers, it.Turn, w.Policies, w.Signers, w.Turn)
			}
		}
		if found != 3 {
			t.Errorf("entry %d is in %d of history, audit and export", index, found)
		}
	}
	if len(r.Claims) != 1 || !reflect.DeepEqual(r.Claims[0].Turn, want[l.claim].Turn) {
		t.Errorf("claims %+v", r.Claims)
	}
}

// exported is the predicate about an entry.
func exported(t *testing.T, dir string, index int64) (it audit.Item) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("%08d-*.json", index)))
	if err != nil || len(files) != 1 {
		t.Fatalf("entry %d: %q, %v", index, files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var e struct{ Payload string }
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	body, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		t.Fatal(err)
	}
	s := struct{ Predicate *audit.Item }{&it}
	if err := json.Unmarshal(body, &s); err != nil {
		t.Fatal(err)
	}
	return it
}

// TestTurnIsNoState: who keeps why claims were granted comes to the same state as
// who does not, and a copy keeps its own.
func TestTurnIsNoState(t *testing.T) {
	l := agree(t)
	s := ledger.NewState()
	s.KeepTurns()
	fold := ledger.NewFold(s)
	for _, leaf := range l.Leaves {
		if err := fold.Add(leaf); err != nil {
			t.Fatal(err)
		}
	}
	c := s.Clone()
	if s.StateRoot() != l.State().StateRoot() || s.Turn(l.claim) == nil || c.Turn(l.claim) == nil || l.State().Turn(l.claim) != nil || s.Turn(l.stop) != nil {
		t.Errorf("turns: %v, of the copy %v, of who keeps none %v", s.Turn(l.claim), c.Turn(l.claim), l.State().Turn(l.claim))
	}
	if strings.Contains(string(s.Snapshot()), "claimedIn") {
		t.Error("a snapshot has it")
	}
}
