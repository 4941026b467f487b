// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// opened is a Ledger that has followed a log.
func opened(t *testing.T, l *ledgertest.Log, dir, url string) (*Ledger, error) {
	t.Helper()
	led, err := NewLedger(clock.System{}, filepath.Join(dir, "acted"))
	if err != nil {
		t.Fatal(err)
	}
	if err := led.Open(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{url}, StateFile: filepath.Join(dir, "checkpoint")}); err != nil {
		t.Fatal(err)
	}
	return led, led.Sync(t.Context())
}

// TestRollbackOverARestart: what one agent saw, the next one wants to see again,
// whoever answers it.
func TestRollbackOverARestart(t *testing.T) {
	l := ledgertest.New(t)
	old := l.Fork()
	l.Must(l.Register("shop", 1, nil))
	dir := t.TempDir()
	if _, err := opened(t, l, dir, l.Serve()); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(old.Handler())
	defer s.Close()
	if _, err := opened(t, l, dir, s.URL); !errors.Is(err, ledger.ErrRollback) {
		t.Errorf("the log of before is taken by the next agent: %v", err)
	}
	if _, err := opened(t, l, t.TempDir(), s.URL); err != nil {
		t.Errorf("who has seen nothing yet does not take it: %v", err)
	}
}

// TestRefusalIsAWord: no ledger can make a node believe that an entry is refused
// which the verified state allows.
func TestRefusalIsAWord(t *testing.T) {
	l := ledgertest.New(t)
	led, err := opened(t, l, t.TempDir(), l.Serve())
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	liar := ledger.Taker{URL: "http://liar", Submit: func(context.Context, []byte) (ledger.Receipt, error) {
		asked++
		return ledger.Receipt{}, &ledger.Refused{Reason: "not today", Index: -1}
	}}
	good := ledger.Taker{URL: "http://good", Submit: l.Submit}
	client := led.client
	entry := l.Register("shop", 1, nil)
	var refused *ledger.Refused

	led.Use(client, []ledger.Taker{liar})
	if _, err := led.Submit(t.Context(), entry); errors.As(err, &refused) || !errors.Is(err, ledger.ErrUnreachable) {
		t.Errorf("the liar alone: %v", err)
	}
	led.Use(client, []ledger.Taker{liar, good})
	if r, err := led.Submit(t.Context(), entry); err != nil || asked != 2 {
		t.Errorf("the liar first: %+v, %v, asked %d times", r, err, asked)
	}
	if err := led.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	// It stands there now: that is what the verified state says, too.
	led.Use(client, []ledger.Taker{liar})
	if r, err := led.Submit(t.Context(), entry); err != nil || r.Index < 0 {
		t.Errorf("what stands there: %+v, %v", r, err)
	}
	nothing := l.Sign(ledger.TypeStop, ledger.Stop{Deployment: 1 << 30, Name: "shop", Reason: "enough"}, "author")
	if _, err := led.Submit(t.Context(), nothing); !errors.As(err, &refused) || refused.Reason == "not today" {
		t.Errorf("what the state refuses: %v", err)
	}
}

// TestSubmitsUnderTheNewestRoot: who follows the log has its newest root of trust,
// and does not follow the others to it for each entry that it submits.
func TestSubmitsUnderTheNewestRoot(t *testing.T) {
	l := ledgertest.New(t)
	next := l.Root
	log, elected := ledgertest.Signers(t, next.Log.Origin)
	next.Version, next.Log = 2, log
	l.SignBy(elected)
	l.Must(l.Sign(ledger.TypeRoot, next, "root"))
	var roots atomic.Int64
	handler := l.Handler()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/root/") {
			roots.Add(1)
		}
		handler.ServeHTTP(w, r)
	}))
	defer s.Close()
	led, err := opened(t, l, t.TempDir(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	roots.Store(0)
	for _, name := range []string{"a", "b"} {
		if _, err := led.Submit(t.Context(), l.Register(name, 1, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if n := roots.Load(); n != 0 {
		t.Errorf("two submissions asked for %d roots of trust", n)
	}
}

// TestLiarsAreAskedLast: who lied when the log was read is asked after those
// who did not.
func TestLiarsAreAskedLast(t *testing.T) {
	l := ledgertest.New(t)
	led, err := opened(t, l, t.TempDir(), l.Serve())
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	taker := func(url string) ledger.Taker {
		return ledger.Taker{URL: url, Submit: func(ctx context.Context, b []byte) (ledger.Receipt, error) {
			order = append(order, url)
			return ledger.Receipt{}, ledger.ErrUnreachable
		}}
	}
	led.Use(led.client, []ledger.Taker{taker("http://a"), taker("http://b")})
	led.OnRefused("http://a", ledger.ErrForged)
	if _, err := led.Submit(t.Context(), l.Register("shop", 1, nil)); !errors.Is(err, ledger.ErrUnreachable) {
		t.Fatal(err)
	}
	if len(order) != 2 || order[0] != "http://b" {
		t.Errorf("asked %v", order)
	}
}

// TestNotKeptNotActedOn: a state of the log that a full disk does not remember is
// not acted on, and the next Sync tries again.
func TestNotKeptNotActedOn(t *testing.T) {
	l := ledgertest.New(t)
	path := filepath.Join(t.TempDir(), "acted")
	led, err := NewLedger(clock.System{}, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := led.Open(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Serve()}}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	changed := led.Changed()
	for range 2 {
		if err := led.Sync(t.Context()); err == nil || led.Acted() != (ledger.Acted{}) {
			t.Errorf("acts on %+v, which is not kept: %v", led.Acted(), err)
		}
	}
	select {
	case <-changed:
		t.Error("somebody was woken for it")
	default:
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := led.Sync(t.Context()); err != nil || led.Acted() != l.State().Acted() {
		t.Errorf("acts on %+v: %v", led.Acted(), err)
	}
	<-changed
}

// stopped is a clock that shows one moment.
type stopped struct {
	clock.System
	now time.Time
}

func (s stopped) Now() time.Time { return s.now }

// TestOverSinceTheLastBlock: on a ledger where nobody says anything, the time of
// the last block is no measure of what has ended since. That it has, ledger and
// own clock have to say.
func TestOverSinceTheLastBlock(t *testing.T) {
	l := ledgertest.New(t)
	led, err := opened(t, l, t.TempDir(), l.Serve())
	if err != nil {
		t.Fatal(err)
	}
	ends := l.NowMs() + 3_600_000
	entry := l.NewNode("n").EnrolEntry(l.ExpiringVoucher("v", 1, ends))
	led.Use(led.client, []ledger.Taker{{URL: "http://x", Submit: func(context.Context, []byte) (ledger.Receipt, error) {
		return ledger.Receipt{}, &ledger.Refused{Reason: "over", Index: -1}
	}}})
	for after, over := range map[int64]bool{-1: false, 0: true, 3_600_000: true} {
		now := time.UnixMilli(ends + after)
		led.clock, led.heard = stopped{now: now}, now
		_, err := led.Submit(t.Context(), entry)
		var refused *ledger.Refused
		if errors.As(err, &refused) != over || over && refused.Field != "payload.voucher.payload.expiresMs" {
			t.Errorf("%d ms after its end: %v", after, err)
		}
	}
}
