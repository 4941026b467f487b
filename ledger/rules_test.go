// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/sign"
)

// Claims, records, incidents and closes speak of things that are there, that
// are the node's own, and that have not ended.
func TestEntriesAboutWhatIsNotThere(t *testing.T) {
	l := ledgertest.New(t)
	n, m := l.Join("n", 4096), l.Join("m", 4096)
	id := l.Must(l.Register("shop", 1, nil))
	l.Pass(20_000)
	acted := l.Acted()
	wants(t, l.Refuse(n.Entry(ledger.TypeClaim, ledger.Claim{Deployment: id + 7, Acted: acted})), "payload.deployment", "no deployment was registered")
	wants(t, l.Refuse(n.Entry(ledger.TypeClaim, ledger.Claim{Deployment: id, Attempt: 1, Acted: acted})), "payload.attempt", "want 0")
	claim := l.Must(n.Claim(id))
	acted = l.Acted()
	for kind, payload := range map[string]any{
		ledger.TypeRenew: ledger.Renew{Claim: id, Acted: acted}, ledger.TypeRelease: ledger.Release{Claim: id, Acted: acted},
		ledger.TypeRecord:   ledger.Record{Claim: id, Phase: "plan", Result: "ok", Acted: acted},
		ledger.TypeIncident: ledger.Incident{Claim: id, Kind: "x", Acted: acted}, ledger.TypeClose: ledger.Close{Claim: id, Result: "failed", Acted: acted},
	} {
		wants(t, l.Refuse(n.Entry(kind, payload)), "payload.claim", "no claim was granted")
	}
	for kind, payload := range map[string]any{
		ledger.TypeRenew: ledger.Renew{Claim: claim, Acted: acted}, ledger.TypeRelease: ledger.Release{Claim: claim, Acted: acted},
		ledger.TypeRecord:   ledger.Record{Claim: claim, Phase: "plan", Result: "ok", Acted: acted},
		ledger.TypeIncident: ledger.Incident{Claim: claim, Kind: "x", Acted: acted}, ledger.TypeClose: ledger.Close{Claim: claim, Result: "failed", Acted: acted},
	} {
		wants(t, l.Refuse(m.Entry(kind, payload)), "payload.claim", "belongs to node")
	}
	wants(t, l.Refuse(n.Entry(ledger.TypeClose, ledger.Close{Claim: claim, Result: "replaced", Acted: acted})), "payload.result", "nothing replaced")
	wants(t, l.Refuse(n.Entry(ledger.TypeClose, ledger.Close{Claim: claim, Result: "released", Acted: acted})), "payload.result", "not given back")
	never := ledger.Acted{Size: acted.Size, Root: strings.Repeat("0", 64)}
	for kind, payload := range map[string]any{
		ledger.TypeClaim: ledger.Claim{Deployment: id, Acted: never}, ledger.TypeRenew: ledger.Renew{Claim: claim, Acted: never},
		ledger.TypeRelease: ledger.Release{Claim: claim, Acted: never}, ledger.TypeRecord: ledger.Record{Claim: claim, Phase: "plan", Result: "ok", Acted: never},
		ledger.TypeIncident: ledger.Incident{Claim: claim, Kind: "x", Acted: never}, ledger.TypeClose: ledger.Close{Claim: claim, Result: "failed", Acted: never},
	} {
		wants(t, l.Refuse(n.Entry(kind, payload)), "acted.root", "forked")
	}
	l.Must(n.Entry(ledger.TypeRelease, ledger.Release{Claim: claim, Acted: acted}))
	wants(t, l.Refuse(n.Entry(ledger.TypeRelease, ledger.Release{Claim: claim, Reason: "again", Acted: acted})), "payload.claim", "whose lease is")
	wants(t, l.Refuse(n.Entry(ledger.TypeRenew, ledger.Renew{Claim: claim, Acted: acted})), "payload.claim", "whose lease is")
	l.Must(n.Entry(ledger.TypeClose, ledger.Close{Claim: claim, Result: "released", Acted: acted}))
	wants(t, l.Refuse(n.Entry(ledger.TypeClose, ledger.Close{Claim: claim, Result: "failed", Reason: "again", Acted: acted})), "payload.claim", "closed already")
}

// An enrolment has exactly two signatures: the node's and the voucher's, and
// those are two keys.
func TestEnrolmentHasTwoKeys(t *testing.T) {
	l := ledgertest.New(t)
	a, b, voucher := l.NewNode("a"), l.NewNode("b"), l.Keys["voucher"]
	enrol := ledger.Enrol{Name: "a", Key: a.Key.PublicKey(), Voucher: l.Voucher("v", 1, nil), Image: "x", Acted: l.Acted()}
	own := enrol
	own.Voucher = l.Envelope(ledger.TypeVoucher, ledger.Voucher{ID: "own", Uses: 1, Key: a.Key.PublicKey()}, "operator")
	for name, c := range map[string]struct {
		enrol   ledger.Enrol
		signers []sign.Signer
	}{
		"without the node":         {enrol, []sign.Signer{voucher, b.Key}},
		"without the voucher":      {enrol, []sign.Signer{a.Key, b.Key}},
		"one more":                 {enrol, []sign.Signer{a.Key, voucher, b.Key}},
		"voucher of the node's":    {own, []sign.Signer{a.Key, b.Key}},
		"voucher alone":            {enrol, []sign.Signer{voucher}},
		"node's key for a voucher": {own, []sign.Signer{a.Key}},
	} {
		e, err := ledger.NewEntry(ledger.TypeEnrol, c.enrol, c.signers...)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { wants(t, l.Refuse(e), "signatures", "must be two") })
	}
	never := enrol
	never.Acted.Root = strings.Repeat("0", 64)
	e, err := ledger.NewEntry(ledger.TypeEnrol, never, a.Key, voucher)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, l.Refuse(e), "acted.root", "forked")
}

// A node's entry has one signature; nobody may add another.
func TestNodeEntryHasOneKey(t *testing.T) {
	l := ledgertest.New(t)
	n, m := l.Join("n", 64), l.Join("m", 64)
	both, err := ledger.NewEntry(ledger.TypeCapacity, n.Capacity(128), n.Key, m.Key)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, l.Refuse(both), "signatures", "are 2, want one")
}

// A log begins with version 1 of its root of trust, and with nothing else.
func TestLogBegins(t *testing.T) {
	l := ledgertest.New(t)
	second := l.Root
	second.Version = 2
	if _, err := ledger.Genesis(l.Sign(ledger.TypeRoot, second, "root"), 1); err == nil || !strings.Contains(err.Error(), "begins with version 1") {
		t.Errorf("a log that begins with version 2: %v", err)
	}
	if _, err := ledger.Genesis(l.Register("shop", 1, nil), 1); err == nil || !strings.Contains(err.Error(), "root of trust") {
		t.Errorf("a log that begins with a deployment: %v", err)
	}
	for name, root := range map[string][]byte{
		"of another kind":   l.Register("shop", 1, nil),
		"signed by another": l.Sign(ledger.TypeRoot, l.Root, "author"),
		"not signed":        l.Sign(ledger.TypeRoot, l.Root),
		"cut off":           l.RootEnv[:100],
	} {
		if _, err := ledger.OpenClient(ledger.ClientConfig{Root: root, Ledgers: []string{l.Dir}}); err == nil || !strings.Contains(err.Error(), "root of trust") {
			t.Errorf("a root of trust %s: %v", name, err)
		}
	}
	if _, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv}); err == nil || !strings.Contains(err.Error(), "no ledger") {
		t.Errorf("no ledger: %v", err)
	}
}

// TestFoldRefusesHeights: blocks that Apply made, in an order of heights that
// no consensus gives.
func TestFoldRefusesHeights(t *testing.T) {
	l := ledgertest.New(t)
	for name, c := range map[string]struct {
		first, second int64
		ok            bool
	}{"next": {5, 6, true}, "later": {5, 9, true}, "the same": {5, 5, false}, "before": {5, 4, false}} {
		made := ledger.NewState()
		leaves := made.Apply(c.first, ledgertest.Epoch, [][]byte{l.RootEnv}).Leaves
		leaves = append(leaves, made.Apply(c.second, ledgertest.Epoch+1, [][]byte{l.Register("shop", 1, nil)}).Leaves...)
		fold := ledger.NewFold(ledger.NewState())
		var err error
		for _, leaf := range leaves {
			if err = fold.Add(leaf); err != nil {
				break
			}
		}
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "does not follow 5") {
			t.Errorf("height %s: %v", name, err)
		}
	}
}

// TestStateFileOfAnotherLedger: what a client remembers of one ledger says
// nothing about another one, even under the same people's keys.
func TestStateFileOfAnotherLedger(t *testing.T) {
	l := ledgertest.New(t)
	other := l.Root
	policy, signers := ledgertest.Signers(t, "other.example/log")
	other.Log = policy
	note, err := signers.Sign("other.example/log", tlog.Tree{N: 2})
	if err != nil {
		t.Fatal(err)
	}
	write := func(root, checkpoint []byte) string {
		b, err := json.Marshal(struct {
			Root       []byte `json:"root"`
			Checkpoint []byte `json:"checkpoint"`
		}{root, checkpoint})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open := func(state string) error {
		_, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Dir}, StateFile: state})
		return err
	}
	own, err := os.ReadFile(filepath.Join(l.Dir, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	if err := open(write(l.RootEnv, own)); err != nil {
		t.Fatalf("its own state file: %v", err)
	}
	for name, c := range map[string]struct{ path, says string }{
		"another ledger": {write(l.Sign(ledger.TypeRoot, other, "root"), note), "is of ledger other.example/log, want test.example/log"},
		"no root":        {write([]byte("{}"), own), "payloadType"},
		"no checkpoint":  {write(l.RootEnv, []byte("x")), "checkpoint"},
		"foreign note":   {write(l.RootEnv, note), "no signature of a known key"},
		"a folder":       {t.TempDir(), "state file"},
	} {
		if err := open(c.path); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want it to say %q", name, err, c.says)
		}
	}
}
