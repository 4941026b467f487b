// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/ledger/metrics"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
)

// TestQuotas: who has too much ordered is told to wait, and is counted; others
// are served; and nobody uses up the share of somebody else by submitting what
// that one has signed before.
func TestQuotas(t *testing.T) {
	l, dir := fresh(t, lease)
	e := open(t, dir, Options{Quota: ledger.Quota{Rate: 0.001, Burst: 4}})
	set := metrics.New(nil)
	s := httptest.NewServer(ledger.Handler(LogDir(dir), set.Submitter(e), slog.New(slog.DiscardHandler)))
	defer s.Close()
	post := func(what string, b []byte, want int) string {
		t.Helper()
		resp, err := http.Post(s.URL+"/submit", "application/json", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want {
			t.Fatalf("%s: %s, %s; want %d", what, resp.Status, body, want)
		}
		if (want == 429) != (resp.Header.Get("Retry-After") != "") {
			t.Errorf("%s: Retry-After is %q", what, resp.Header.Get("Retry-After"))
		}
		return string(body)
	}
	n := l.NewNode("n")
	by := func(kind string, payload any, keys ...sign.Signer) []byte {
		t.Helper()
		b, err := ledger.NewEntry(kind, payload, keys...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	// Four entries are the node's share. Whoever reads the log submits three of
	// them again, and the node needs all four.
	enrol := by(ledger.TypeEnrol, ledger.Enrol{Name: "n", Key: n.Key.PublicKey(), Voucher: l.Voucher("v", 1, nil), Image: "test", Acted: e.State().Acted()}, n.Key, l.Keys["voucher"])
	post("enrol", enrol, 200)
	capacity := n.Capacity(4096)
	capacity.Acted = e.State().Acted()
	first := by(ledger.TypeCapacity, capacity, n.Key)
	post("capacity", first, 200)
	shop := l.Register("shop", 1, func(d *spec.Deployment) { d.Gateways = nil })
	post("register", shop, 200)
	id := e.State().DeploymentByName("shop").ID
	claim := by(ledger.TypeClaim, ledger.Claim{Deployment: id, Acted: e.State().Acted()}, n.Key)
	post("claim", claim, 200)
	env, err := sign.DecodeEnvelope(claim)
	if err != nil {
		t.Fatal(err)
	}
	if err := env.Add(ledgertest.Key(t)); err != nil {
		t.Fatal(err)
	}
	more, err := env.Encode()
	if err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Replace(first, []byte(env.Signatures[0].KeyID), []byte(l.Keys["author"].KeyID()), 1)
	for range 3 {
		post("somebody submits the node's claim", claim, 200)
		post("somebody submits its enrolment", enrol, 200)
		post("somebody submits its capacity", first, 200)
		post("somebody adds a signature", more, 409)
		post("somebody puts a key there that did not sign", wrong, 400)
	}
	grant := e.State().Deployment(id).Claims[0]
	renew := by(ledger.TypeRenew, ledger.Renew{Claim: grant, Acted: e.State().Acted()}, n.Key)
	post("the node's renewal", renew, 200)

	again := by(ledger.TypeRenew, ledger.Renew{Claim: grant, Acted: e.State().Acted()}, n.Key)
	for range 2 {
		if why := post("one too many", again, 429); !strings.Contains(why, n.ID) || !strings.Contains(why, "submit again in") {
			t.Errorf("the answer is %s", why)
		}
	}
	post("what is there, by a key that has to wait", renew, 200)
	post("somebody else", l.Register("other", 1, nil), 200)
	post("no entry", []byte("{}"), 400)
	root := []byte(nil)
	if root = e.State().RootEnvelope(1); root == nil {
		t.Fatal("no root")
	}
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: root, Ledgers: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	var busy *ledger.Busy
	if _, err := c.Submit(t.Context(), again); !errors.As(err, &busy) || !busy.Quota || busy.After <= 0 || errors.Is(err, ledger.ErrForged) {
		t.Errorf("the client says %v", err)
	}
	w := httptest.NewRecorder()
	set.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for result, want := range map[string]int{"quota": 3, "ok": 5 + 9 + 2, "refused": 7, "busy": 0, "failed": 0} {
		if line := fmt.Sprintf("zos_ledger_submit_seconds_count{result=%q} %d\n", result, want); !strings.Contains(w.Body.String(), line) {
			t.Errorf("no %s in:\n%s", line, grepped(w.Body.String(), "submit_seconds_count"))
		}
	}
}

func grepped(text, word string) string {
	var all []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			all = append(all, line)
		}
	}
	return strings.Join(all, "")
}
