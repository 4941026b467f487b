// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

func TestDecodeRefuses(t *testing.T) {
	l := ledgertest.New(t)
	n := l.Join("n", 1024)
	zero := strings.Repeat("0", 64)
	root := func(edit func(*ledger.Root)) []byte {
		r := l.Root
		r.Require = map[string][]string{"root": {"root"}, "deployment": {"author"}, "stop": {"author"}, "voucher": {"operator"}}
		edit(&r)
		return l.Sign(ledger.TypeRoot, r, "root")
	}
	for _, tt := range []struct {
		name string
		raw  []byte
		says []string
	}{
		{"no JSON", []byte("x"), []string{"JSON"}},
		{"white space", append([]byte("\n"), l.Leaves[0]...), []string{"canonical form"}},
		{"trailing data", append(bytes.Clone(l.Leaves[0]), '{'), []string{"trailing data"}},
		{"voucher alone", l.Sign(ledger.TypeVoucher, ledger.Voucher{ID: "v", Uses: 1, Key: l.Keys["voucher"].PublicKey()}, "operator"), []string{"payloadType", "no entry by itself"}},
		{"expiring voucher alone", l.Sign(ledger.TypeExpiringVoucher, ledger.ExpiringVoucher{ID: "v", Uses: 1, Key: l.Keys["voucher"].PublicKey(), ExpiresMs: 1}, "operator"), []string{"payloadType", "no entry by itself"}},
		{"unknown kind", l.Sign("application/vnd.zos.other.v1+json", []byte("{}"), "operator"), []string{"payloadType", "no kind of entry"}},
		{"absent field", l.Sign(ledger.TypeStop, []byte(`{"deployment":1,"name":"x"}`), "author"), []string{"payload.reason"}},
		{"unknown field", l.Sign(ledger.TypeStop, []byte(`{"deployment":1,"name":"x","reason":"","force":true}`), "author"), []string{"payload.force"}},
		{"duplicate key", l.Sign(ledger.TypeStop, []byte(`{"deployment":1,"deployment":2,"name":"x","reason":""}`), "author"), []string{"payload.deployment"}},
		{"wrong case", l.Sign(ledger.TypeStop, []byte(`{"Deployment":1,"name":"x","reason":""}`), "author"), []string{"payload.Deployment"}},
		{"float", l.Sign(ledger.TypeStop, []byte(`{"deployment":1.0,"name":"x","reason":""}`), "author"), []string{"payload.deployment", "float"}},
		{"negative", l.Sign(ledger.TypeStop, ledger.Stop{Deployment: -1, Name: "x"}, "author"), []string{"payload.deployment", "want 0 or more"}},
		{"signature altered", alter(t, l), []string{"signatures[0].sig"}},
		{"root with no role for stop", root(func(r *ledger.Root) { delete(r.Require, "stop") }), []string{"require.stop"}},
		{"root with a role that is not there", root(func(r *ledger.Root) { r.Require["stop"] = []string{"x"} }), []string{"require.stop", `"x"`}},
		{"root for another kind", root(func(r *ledger.Root) { r.Require["claim"] = []string{"author"} }), []string{"require"}},
		{"quorum of none", root(func(r *ledger.Root) { r.Log.Quorum = 0 }), []string{"log.quorum"}},
		{"quorum out of reach", root(func(r *ledger.Root) { r.Log.Quorum = 2 }), []string{"log.quorum"}},
		{"log key of another name", root(func(r *ledger.Root) { r.Log.Origin = "x" }), []string{"log", "origin"}},
		{"no lease", root(func(r *ledger.Root) { r.Lease.LeaseMs = 0 }), []string{"lease"}},
		{"record without chain", l.Sign(ledger.TypeRecord, ledger.Record{Seq: 1, Phase: "plan", Result: "ok", Acted: ledger.Acted{Root: zero}}, "author"), []string{"payload.previous"}},
		{"result of another word", l.Sign(ledger.TypeRecord, ledger.Record{Phase: "plan", Result: "fine", Acted: ledger.Acted{Root: zero}}, "author"), []string{"payload.result"}},
		{"ok with an error", l.Sign(ledger.TypeRecord, ledger.Record{Phase: "plan", Result: "ok", Error: "x", Acted: ledger.Acted{Root: zero}}, "author"), []string{"payload.error"}},
		{"acted on nothing", l.Sign(ledger.TypeRenew, ledger.Renew{Acted: ledger.Acted{Root: "00"}}, "author"), []string{"payload.acted.root"}},
		{"close for another reason", l.Sign(ledger.TypeClose, ledger.Close{Result: "bored", Acted: ledger.Acted{Root: zero}}, "author"), []string{"payload.result"}},
		{"address that is none", func() []byte {
			c := n.Capacity(1)
			c.Addresses = []string{"010.0.0.1"}
			return l.Sign(ledger.TypeCapacity, c, "author")
		}(), []string{"payload.addresses[0]"}},
	} {
		_, err := ledger.Decode(tt.raw)
		if err == nil {
			// What is well-formed may still be wrong for Apply.
			err = l.State().Check(0, tt.raw)
		}
		if err == nil {
			t.Errorf("%s: accepted", tt.name)
			continue
		}
		for _, s := range tt.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q does not name %q", tt.name, err, s)
			}
		}
	}
	if err := l.State().Check(0, l.Leaves[1]); err == nil {
		t.Error("a block leaf could be submitted")
	}
}

// alter is an entry with one bit of its payload changed after signing.
func alter(t *testing.T, l *ledgertest.Log) []byte {
	t.Helper()
	env := l.Envelope(ledger.TypeStop, ledger.Stop{Deployment: 1, Name: "x"}, "author")
	env.Payload = bytes.Replace(env.Payload, []byte(`"x"`), []byte(`"y"`), 1)
	b, err := env.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzDecode(f *testing.F) {
	l := ledgertest.New(f)
	n := l.Join("n", 1024)
	id := l.Must(l.Register("shop", 1, nil))
	l.Must(n.Record(l.Must(n.Claim(id)), "plan", "ok", nil))
	for _, leaf := range l.Leaves {
		f.Add(leaf)
	}
	state := l.State()
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ledger.Decode(b)
		if err != nil {
			return
		}
		again, err := e.Envelope.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q decodes, but encodes to %q (%v)", b, again, err)
		}
		before := state.StateRoot()
		if err := state.Check(0, b); err == nil {
			t.Errorf("%q could enter", b)
		}
		if state.StateRoot() != before {
			t.Error("Check changed the state")
		}
	})
}
