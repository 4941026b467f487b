// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// TestLedgerReferences: an address is a plain URL or a folder with a log.
func TestLedgerReferences(t *testing.T) {
	l := ledgertest.New(t)
	for _, bad := range []string{"", t.TempDir(), "ftp://host/", "http://", "http://user:secret@host/", "http://host/?q=1", "http://host:x y/", "://x"} {
		if _, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{bad}}); err == nil || !strings.Contains(err.Error(), "want ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{l.Dir, "http://host", "https://host:1/path/"} {
		if _, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{good}}); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	if _, err := ledger.Submit(t.Context(), l.Dir, nil, l.RootEnv); !errors.Is(err, ledger.ErrUnreachable) || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("submitted to a folder: %v", err)
	}
	if _, err := ledger.Submit(t.Context(), "ftp://x", nil, l.RootEnv); err == nil {
		t.Error("submitted by ftp")
	}
}

// answers is a server that says one thing to everybody.
func answers(t *testing.T, status int, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		if _, err := w.Write([]byte(body)); err != nil {
			t.Logf("client went away: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestSubmitAnswers: which answers are receipts, which are refusals, and
// which say nothing at all.
func TestSubmitAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   string // "receipt", "refused" or "unreachable"
	}{
		{200, `{"index":3,"size":5,"timeMs":7}`, "receipt"},
		{409, `{"index":3,"size":5,"timeMs":7,"error":"the same"}`, "receipt"},
		{409, `{"error":"no","field":"f"}`, "refused"},
		{400, `{"error":"no","field":"f"}`, "refused"},
		{413, `{"error":"no","field":"f"}`, "refused"},
		{200, `{"size":5}`, "unreachable"},
		{200, `<html>`, "unreachable"},
		{400, `<html>`, "unreachable"},
		{400, ``, "unreachable"},
		{500, `{"index":3,"size":5,"timeMs":7}`, "unreachable"},
		{503, `{"error":"busy"}`, "unreachable"},
		{302, `{"index":3}`, "unreachable"},
	} {
		r, err := ledger.Submit(t.Context(), answers(t, c.status, c.body), nil, []byte("{}"))
		var refused *ledger.Refused
		got := "receipt"
		switch {
		case errors.As(err, &refused):
			got = "refused"
			if refused.Field != "f" || refused.Reason != "no" || refused.Index != -1 {
				t.Errorf("%d %s: refusal %+v", c.status, c.body, refused)
			}
		case errors.Is(err, ledger.ErrUnreachable):
			got = "unreachable"
		case err != nil:
			got = err.Error()
		case r != ledger.Receipt{Index: 3, Size: 5, TimeMs: 7}:
			got = "another receipt"
		}
		if got != c.want {
			t.Errorf("%d %s: %s (%v), want %s", c.status, c.body, got, err, c.want)
		}
	}
}

// TestReadAnswers: a server that fails is unreachable, one that sends too much
// is wrong, and whatever it says is not a log.
func TestReadAnswers(t *testing.T) {
	l := ledgertest.New(t)
	for _, c := range []struct {
		url  string
		want error
	}{
		{answers(t, 500, "{}"), ledger.ErrUnreachable},
		{answers(t, 403, "{}"), ledger.ErrUnreachable},
		{answers(t, 404, "{}"), ledger.ErrUnreachable},
		{answers(t, 200, strings.Repeat("x", 1<<17)), ledger.ErrForged},
		{answers(t, 200, "{}"), ledger.ErrForged},
		{unheard(t), ledger.ErrUnreachable},
	} {
		if err := l.Client("", c.url).Sync(t.Context()); !errors.Is(err, c.want) || errors.Is(err, ledger.ErrForged) != (c.want == ledger.ErrForged) {
			t.Errorf("%s: %v, want %v", c.url, err, c.want)
		}
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	c := l.Client("", "http://127.0.0.1:1", "http://127.0.0.1:2")
	if err := c.Sync(over); err == nil || strings.Contains(err.Error(), "127.0.0.1:2") {
		t.Errorf("after the end of its time it asked on: %v", err)
	}
	if _, err := c.Submit(over, l.RootEnv); err == nil || strings.Contains(err.Error(), "127.0.0.1:2") {
		t.Errorf("after the end of its time it submitted on: %v", err)
	}
}

// TestEntriesThatAreNotThere: ranges, proofs and older trees beyond the log.
func TestEntriesThatAreNotThere(t *testing.T) {
	l := ledgertest.New(t)
	c := l.Client("", l.Dir)
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := c.Entries()
	for _, r := range [][2]int64{{-1, 1}, {0, 3}, {2, 1}} {
		if err := e.Range(t.Context(), r[0], r[1], func(int64, []byte) error { return nil }); err == nil {
			t.Errorf("entries %d to %d of 2", r[0], r[1])
		}
	}
	if _, err := e.Prove(t.Context(), 2); err == nil {
		t.Error("entry 2 of 2 is proven")
	}
	for _, n := range []int64{0, 3} {
		if err := e.Consistent(t.Context(), tlog.Tree{N: n}); !errors.Is(err, ledger.ErrRollback) {
			t.Errorf("continues a tree of %d: %v", n, err)
		}
	}
	proof, err := e.Prove(t.Context(), 1)
	if err != nil || proof.Check(l.Leaves[1]) != nil {
		t.Fatalf("%v, %v", err, proof.Check(l.Leaves[1]))
	}
	if err := proof.Check(l.Leaves[0]); !errors.Is(err, ledger.ErrForged) {
		t.Errorf("another entry fits the proof: %v", err)
	}
	own := errors.New("stop here")
	if err := e.Range(t.Context(), 0, 2, func(int64, []byte) error { return own }); !errors.Is(err, own) || errors.Is(err, ledger.ErrForged) {
		t.Errorf("the caller's error came back as %v", err)
	}
}
