// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
)

// says serves a log, and says one thing to everybody who submits.
func says(t *testing.T, l *ledgertest.Log, status int, answer string) string {
	t.Helper()
	log := l.Handler()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/submit" {
			log.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(status)
		if _, err := io.WriteString(w, answer); err != nil {
			t.Logf("client went away: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestRefusalsAreWords: one ledger that refuses what it should not decides nothing
// where another takes the entry; and what the log refuses is refused.
func TestRefusalsAreWords(t *testing.T) {
	l := ledgertest.New(t)
	denies := says(t, l, 409, `{"error":"not today","field":"f"}`)
	// One that hides a refusal in a receipt.
	receives := says(t, l, 200, `{"index":2,"size":4,"proof":"x","entry":"{}"}`)
	denies2 := says(t, l, 409, `{"error":"not today either"}`)
	honest, away := l.Serve(), unheard(t)
	shop := 0
	for _, tt := range []struct {
		name         string
		ledgers      []string
		synced       bool
		taken        bool
		refused      bool // a *Refused
		word, beyond bool // ErrWord, ErrUnreachable
		text         string
	}{
		{"one of two", []string{denies, honest}, true, true, false, false, false, ""},
		{"one of two, nothing was read", []string{denies, honest}, false, true, false, false, false, ""},
		{"one of two, with a receipt", []string{receives, honest}, true, true, false, false, false, ""},
		{"it alone", []string{denies}, true, false, false, true, true, "not today"},
		{"it alone, nothing was read", []string{denies}, false, false, true, false, false, "not today"},
		{"two of two", []string{denies, denies2}, true, false, false, true, true, "not today either"},
		{"the other is away", []string{denies, away}, true, false, false, false, true, "not today"},
		{"the other is away, nothing was read", []string{denies, away}, false, false, true, false, false, "not today"},
	} {
		c := l.Client("", tt.ledgers...)
		if tt.synced {
			if err := c.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		shop++
		r, err := c.Submit(t.Context(), l.Register(fmt.Sprintf("d%d", shop), 1, nil))
		var refused *ledger.Refused
		if (err == nil) != tt.taken || tt.taken && r.Index != l.State().Size()-2 || errors.As(err, &refused) != tt.refused ||
			errors.Is(err, ledger.ErrWord) != tt.word || errors.Is(err, ledger.ErrUnreachable) != tt.beyond || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %+v, %v", tt.name, r.Index, err)
		}
	}

	// The log has gone on since the client looked.
	c := l.Client("", denies)
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	there := l.Register("x", 1, nil)
	at := l.Must(there)
	if r, err := c.Submit(t.Context(), there); err != nil || r.Index != at {
		t.Errorf("what came to stand there meanwhile: %+v, %v", r, err)
	}
	l.Must(l.Register("x", 2, nil))
	var refused *ledger.Refused
	if _, err := c.Submit(t.Context(), l.Register("x", 2, func(d *spec.Deployment) { d.Gateways[0].Port = 8081 })); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "want 3") {
		t.Errorf("what the log refuses by now: %v", err)
	}
	if _, err := c.Submit(t.Context(), l.Register("x", 7, nil)); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "want 3") {
		t.Errorf("what the log refuses: %v", err)
	}
}

// TestSubmitToEnds: after the end of its time nobody else is asked.
func TestSubmitToEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	taker := ledger.Taker{URL: "http://x", Submit: func(context.Context, []byte) (ledger.Receipt, error) {
		asked++
		cancel()
		return ledger.Receipt{}, &ledger.Refused{Reason: "no", Index: -1}
	}}
	_, err := ledger.SubmitTo(ctx, []ledger.Taker{taker, taker}, nil, func() error { return nil })
	if asked != 1 || errors.Is(err, ledger.ErrWord) || !errors.Is(err, ledger.ErrUnreachable) {
		t.Errorf("%d were asked: %v", asked, err)
	}
}
