// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// successors are roots of trust after that of a log, of which one names other
// validators; their signers come with them. That the others change is a key, say.
func successors(t *testing.T, l *ledgertest.Log, n, elects int) (roots [][]byte, sign func()) {
	t.Helper()
	next := l.Root
	sign = func() {}
	for v := 2; v <= n; v++ {
		next.Version = int64(v)
		next.Lease.LeaseMs++
		if v == elects {
			log, elected := ledgertest.Signers(t, next.Log.Origin)
			next.Log, sign = log, func() { l.SignBy(elected) }
		}
		roots = append(roots, l.Sign(ledger.TypeRoot, next, "root"))
	}
	return roots, sign
}

// counted serves a log and counts the roots that it gives away; before each it asks
// whether it may.
func counted(t *testing.T, l *ledgertest.Log, may func(path string) bool) (url string, given *atomic.Int64) {
	t.Helper()
	given = new(atomic.Int64)
	log := l.Handler()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/root/") {
			if may != nil && !may(r.URL.Path) {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			given.Add(1)
		}
		log.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, given
}

// TestManyRoots: who has but the first root follows a log of any number of them, to
// the end, reads and submits.
func TestManyRoots(t *testing.T) {
	l := ledgertest.New(t)
	roots, elected := successors(t, l, 120, 110)
	elected()
	l.Must(roots...)
	url, given := counted(t, l, nil)
	file := filepath.Join(t.TempDir(), "state")
	c := l.Client(file, url)
	if err := c.Sync(t.Context()); err != nil || c.State().Root().Version != 120 {
		t.Fatalf("from root 1: %v", err)
	}
	if n := given.Load(); n != 120 { // the 119 after it, and that there is no other
		t.Errorf("%d roots were asked for, want 120", n)
	}
	given.Store(0)
	if err := l.Client(file, url).Sync(t.Context()); err != nil || given.Load() != 1 {
		t.Errorf("started again: %v after %d roots", err, given.Load())
	}
	// Who only submits never reads the log, and follows the roots once.
	given.Store(0)
	c = l.Client("", url)
	for i := range 3 {
		if _, err := c.Submit(t.Context(), l.Register(fmt.Sprintf("d%d", i), 1, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if n := given.Load(); n != 120 {
		t.Errorf("three submissions asked for %d roots, want 120", n)
	}
}

// TestTooManyRoots: that there are more than are read is said as what it is.
func TestTooManyRoots(t *testing.T) {
	l := ledgertest.New(t)
	roots, elected := successors(t, l, 7, 6)
	elected()
	l.Must(roots...)
	url := l.Serve()
	for most, want := range map[int]string{5: "more than 5 roots of trust follow version 1", 6: ""} {
		c := l.Client("", url)
		c.SetRoots(most)
		err := c.Sync(t.Context())
		if want == "" && err != nil || want != "" && (!errors.Is(err, ledger.ErrForged) || !strings.Contains(err.Error(), want)) {
			t.Errorf("at most %d: %v", most, err)
		}
	}
}

// TestRootsGoOn: what was read of the roots before the network went away need not
// be read again, and is no trust in a root that the log does not have.
func TestRootsGoOn(t *testing.T) {
	l := ledgertest.New(t)
	draft := l.Fork()
	roots, elected := successors(t, l, 30, 30)
	elected()
	l.Must(roots...)
	away := true
	url, given := counted(t, l, func(path string) bool { return !away || path != "/root/20.json" })
	c := l.Client("", url)
	for range 2 {
		if err := c.Sync(t.Context()); !errors.Is(err, ledger.ErrUnreachable) || given.Load() != 18 {
			t.Errorf("%v after %d roots, want ErrUnreachable after 18", err, given.Load())
		}
	}
	away = false
	if err := c.Sync(t.Context()); err != nil || c.State().Root().Version != 30 || given.Load() != 30 {
		t.Errorf("with the network again: %v, %d roots", err, given.Load())
	}

	// A root that was signed, but that the log never had, on a mirror that fails
	// then: a client that has read it believes the log all the same.
	other := l.Root
	other.Version, other.Lease.LeaseMs = 2, 77
	draft.Must(l.Sign(ledger.TypeRoot, other, "root"))
	drafts, _ := counted(t, draft, func(path string) bool { return path != "/root/3.json" })
	c = l.Client("", drafts, url)
	for range 2 {
		if err := c.Sync(t.Context()); err != nil || c.State().Root().Version != 30 {
			t.Errorf("after a root that the log does not have: %v", err)
		}
	}
	// And one that mends its roots is followed from the beginning again.
	another := *l.State().Root()
	another.Log, _ = ledgertest.Signers(t, l.Root.Log.Origin)
	env, mend := l.Sign(ledger.TypeRoot, another, "root"), false
	c = l.Client("", liar(t, l, func(path string, b []byte) (int, []byte) {
		if path == "/root/30.json" && !mend {
			return 200, env
		}
		return 0, b
	}))
	if err := c.Sync(t.Context()); !errors.Is(err, ledger.ErrForged) {
		t.Errorf("under a root that the log does not have: %v", err)
	}
	mend = true
	if err := c.Sync(t.Context()); err != nil || c.State().Root().Version != 30 {
		t.Errorf("after its roots were mended: %v", err)
	}
}
