// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// foreign is the root's policy in torchwood, another implementation of the
// C2SP formats.
func foreign(t *testing.T, r *ledger.Root) torchwood.Policy {
	t.Helper()
	var logs, cosigners []torchwood.Policy
	for _, v := range r.Log.Validators {
		log, err := note.NewVerifier(v.Log)
		if err != nil {
			t.Fatal(err)
		}
		cosigner, err := torchwood.NewCosignatureVerifier(v.Cosigner)
		if err != nil {
			t.Fatal(err)
		}
		logs, cosigners = append(logs, torchwood.SingleVerifierPolicy(log)), append(cosigners, torchwood.SingleVerifierPolicy(cosigner))
	}
	return torchwood.ThresholdPolicy(3, torchwood.OriginPolicy(r.Log.Origin), torchwood.ThresholdPolicy(1, logs...), torchwood.ThresholdPolicy(int(r.Log.Quorum), cosigners...))
}

// A foreign implementation reads our checkpoint, tiles, bundles and receipts.
func TestForeignImplementation(t *testing.T) {
	l := ledgertest.New(t)
	for i := range 20 {
		var block [][]byte
		for j := range 20 {
			block = append(block, l.Register(fmt.Sprintf("d%d-%d", i, j), 1, nil))
		}
		l.Must(block...)
	}
	url := l.Serve()
	get := func(path string) []byte {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	policy := foreign(t, &l.Root)
	cp, _, err := torchwood.VerifyCheckpoint(get("/checkpoint"), policy)
	if err != nil || cp.N != int64(len(l.Leaves)) {
		t.Fatalf("checkpoint of %d: %v", cp.N, err)
	}
	fetcher, err := torchwood.NewTileFetcher(url)
	if err != nil {
		t.Fatal(err)
	}
	c, err := torchwood.NewClient(fetcher)
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for i, raw := range c.AllEntries(t.Context(), cp.Tree, 0) {
		if i != n || string(raw) != string(l.Leaves[i]) {
			t.Fatalf("entry %d of %d is another", i, n)
		}
		n++
	}
	if err := c.Err(); err != nil || n != cp.N {
		t.Fatalf("%d of %d entries: %v", n, cp.N, err)
	}
	entry := l.Register("one-more", 1, nil)
	r, err := l.Client("", url).Submit(t.Context(), entry)
	if err != nil {
		t.Fatal(err)
	}
	if err := torchwood.VerifyProof(policy, tlog.RecordHash(entry), []byte(r.Proof)); err != nil {
		t.Errorf("receipt: %v", err)
	}
	if err := torchwood.VerifyProof(policy, tlog.RecordHash(l.Leaves[2]), []byte(r.Proof)); err == nil {
		t.Error("the receipt holds for another entry")
	}
}

// A server that lies in its receipt is found out.
func TestReceiptsAreChecked(t *testing.T) {
	l := ledgertest.New(t)
	first := l.Register("a", 1, nil)
	l.Must(first)
	stranger := ledgertest.New(t)
	strange, err := stranger.Client("", stranger.Serve()).Submit(t.Context(), stranger.Register("x", 1, nil))
	if err != nil {
		t.Fatal(err)
	}
	old, err := l.Client("", l.Serve()).Submit(t.Context(), first)
	if err != nil || old.Index != 2 {
		t.Fatalf("%+v, %v", old, err)
	}
	n := 0
	for name, change := range map[string]func(map[string]any){
		"another index":     func(r map[string]any) { r["index"] = 3 },
		"no proof":          func(r map[string]any) { delete(r, "proof") },
		"proof of another":  func(r map[string]any) { r["proof"], r["index"] = old.Proof, old.Index },
		"of another ledger": func(r map[string]any) { r["proof"] = strange.Proof },
		"another entry":     func(r map[string]any) { r["proof"], r["index"], r["entry"] = old.Proof, old.Index, string(first) },
		"a hash altered":    func(r map[string]any) { r["proof"] = strings.Replace(r["proof"].(string), "=\n", "=\nAAAA", 1) },
		"nothing but words": func(r map[string]any) { r["proof"] = "c2sp.org/tlog-proof@v1\nindex 2\n\n" },
	} {
		n++
		url := liar(t, l, func(path string, b []byte) (int, []byte) {
			var r map[string]any
			if path != "/submit" || json.Unmarshal(b, &r) != nil {
				return 0, b
			}
			change(r)
			b, _ = json.Marshal(r)
			return 0, b
		})
		if _, err := l.Client("", url).Submit(t.Context(), l.Register(fmt.Sprintf("b%d", n), 1, nil)); !errors.Is(err, ledger.ErrForged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The same in other bytes has the receipt of what stands there.
	again := l.Envelope(ledger.TypeDeployment, l.Spec("a", 1, nil), "security2", "security1", "author")
	b, err := again.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Client("", l.Serve()).Submit(t.Context(), b)
	if err != nil || r.Index != 2 || r.Entry != string(first) {
		t.Errorf("the same in other bytes: %+v, %v", r.Index, err)
	}
}
