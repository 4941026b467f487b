// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/secure-systems-lab/go-securesystemslib/signerverifier"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/audit"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// The tools of in-toto verify an export; an altered one they refuse.
func TestForeignToolsVerifyExport(t *testing.T) {
	l := ledgertest.New(t)
	run(t, l, phases(), nil)
	r, err := audit.Run(t.Context(), audit.Config{Root: l.RootEnv, Ledger: l.Dir, Deployment: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "export")
	n, err := r.Export(dir, key)
	if err != nil || n != len(r.Story.Items)+1 {
		t.Fatalf("%d statements for %d entries: %v", n, len(r.Story.Items), err)
	}
	pem, err := os.ReadFile(filepath.Join(dir, "auditor.pem"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := signerverifier.LoadKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := signerverifier.NewED25519SignerVerifierFromSSLibKey(public)
	if err != nil {
		t.Fatal(err)
	}
	judge, err := dsse.NewEnvelopeVerifier(verifier)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) != n {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var e dsse.Envelope
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		if ok, err := judge.Verify(context.Background(), &e); err != nil || len(ok) != 1 {
			t.Fatalf("%s: %v", f, err)
		}
		body, err := e.DecodeB64Payload()
		if err != nil {
			t.Fatal(err)
		}
		var s struct {
			Type          string `json:"_type"`
			Subject       []struct{ Digest map[string]string }
			PredicateType string
			Predicate     struct {
				Entry []byte
				Proof string
				Kind  string
			}
		}
		if err := json.Unmarshal(body, &s); err != nil {
			t.Fatal(err)
		}
		if s.Type != "https://in-toto.io/Statement/v1" || len(s.Subject) != 1 || "sha256:"+s.Subject[0].Digest["sha256"] != r.Story.Items[0].Digest {
			t.Errorf("%s: subject %+v", f, s.Subject)
		}
		if s.PredicateType == audit.PredicateEntry {
			if _, err := ledger.Decode(s.Predicate.Entry); err != nil || !strings.HasPrefix(s.Predicate.Proof, "c2sp.org/tlog-proof@v1\n") {
				t.Errorf("%s: entry %v, proof %.30q", f, err, s.Predicate.Proof)
			}
		}
		e.Payload = e.Payload[:40] + "A" + e.Payload[41:]
		if ok, err := judge.Verify(context.Background(), &e); err == nil {
			t.Errorf("%s: verifies when altered, by %v", f, ok)
		}
	}
}

// What should have been recorded and was not is named.
func TestWhatWasNeverRecorded(t *testing.T) {
	l := ledgertest.New(t)
	n := l.Join("n1", 4096)
	id := l.Must(l.Register("shop", 1, nil))
	claim := l.Must(n.Claim(id))
	for _, p := range []string{"detect", "match", "verify-signatures"} {
		l.Must(n.Record(claim, p, "ok", nil))
	}
	l.Must(n.Entry(ledger.TypeClose, ledger.Close{Claim: claim, Records: 3, Result: "failed", Acted: l.Acted()}))
	r, err := audit.Run(t.Context(), audit.Config{Root: l.RootEnv, Ledger: l.Dir, Deployment: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.Claims[0].Missing, " "); got != "claim retrieve verify-resources verify-network fetch-metadata fetch-content plan network volumes start post-verify running" {
		t.Errorf("missing: %q", got)
	}
	if len(r.Discrepancies) != 2 || !strings.Contains(r.Discrepancies[0], "no record and no incident says what failed") ||
		!strings.Contains(r.Discrepancies[1], "before it there is no record of claim, retrieve") {
		t.Errorf("discrepancies: %q", r.Discrepancies)
	}
}

// TestAnIncidentSaysWhatFailed: a guest that panics while it runs fails in no
// phase; the incident of its claim is the reason on the ledger.
func TestAnIncidentSaysWhatFailed(t *testing.T) {
	for _, told := range []bool{true, false} {
		l := ledgertest.New(t)
		n := l.Join("n1", 4096)
		claim := l.Must(n.Claim(l.Must(l.Register("shop", 1, nil))))
		l.Must(n.Record(claim, "detect", "ok", nil))
		if told {
			l.Must(n.Entry(ledger.TypeIncident, ledger.Incident{Claim: claim, Kind: "guest-panic", Machine: "web", Detail: "panic", Acted: l.Acted()}))
		}
		l.Must(n.Entry(ledger.TypeClose, ledger.Close{Claim: claim, Records: 1, Result: "failed", Acted: l.Acted()}))
		r, err := audit.Run(t.Context(), audit.Config{Root: l.RootEnv, Ledger: l.Dir, Deployment: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		if told != (len(r.Discrepancies) == 0) {
			t.Errorf("incident %v: discrepancies %q", told, r.Discrepancies)
		}
	}
}
