// SPDX-License-Identifier: Apache-2.0

package content

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock"
)

// hand is a clock that is set by hand.
type hand struct {
	clock.System
	mu  sync.Mutex
	now time.Time
}

func (h *hand) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hand) move(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// old writes a file and waits until its stamp says something.
func old(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(settled + 10*time.Millisecond); time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// Ahead spares the next Blob its check, and nobody else: not the one after it,
// not one that comes late, not one whose file has changed in any way.
func TestAhead(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		ahead   bool
		between func(s *Store, path string, h *hand) error
		checks  int
		found   int
	}{
		"not ahead":     {checks: 1},
		"ahead":         {ahead: true, checks: 1},
		"used twice":    {ahead: true, checks: 2, between: func(s *Store, _ string, _ *hand) error { _, err := s.Blob(ctx, id("a")); return err }},
		"too long ago":  {ahead: true, checks: 2, between: func(_ *Store, _ string, h *hand) error { h.move(freshFor + 1); return nil }},
		"the clock set": {ahead: true, checks: 2, between: func(_ *Store, _ string, h *hand) error { h.move(-time.Hour); return nil }},
		"written to": {ahead: true, checks: 2, found: 1, between: func(_ *Store, path string, _ *hand) error {
			return os.WriteFile(path, []byte("x"), 0o600)
		}},
		"written to, its time put back": {ahead: true, checks: 2, found: 1, between: func(_ *Store, path string, _ *hand) error {
			was, err := os.Stat(path)
			return errors.Join(err, os.WriteFile(path, []byte("x"), 0o600), os.Chtimes(path, was.ModTime(), was.ModTime()))
		}},
		"another in its place": {ahead: true, checks: 2, found: 1, between: func(_ *Store, path string, _ *hand) error {
			return errors.Join(os.WriteFile(path+"x", []byte("x"), 0o600), os.Rename(path+"x", path))
		}},
		"gone": {ahead: true, checks: 1, between: func(_ *Store, path string, _ *hand) error { return os.Remove(path) }},
	} {
		h, checks, found := &hand{now: time.Now()}, 0, 0
		s, err := Open(Config{Dir: t.TempDir(), Fetch: &fakeFetcher{}, Space: plenty, Clock: h, Log: slog.New(slog.DiscardHandler),
			Check: func(f *os.File, w Want) error { checks++; return fake(f, w) }, Found: func(Finding) error { found++; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		path := s.BlobPath(id("a"))
		old(t, path, "b")
		if c.ahead {
			s.Ahead(ctx, id("c"), id("a")) // the first is not here
		}
		if c.between != nil {
			if err := c.between(s, path, h); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if _, err := s.Blob(ctx, id("a")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "b" {
			t.Errorf("%s: there is %q, %v", name, b, err)
		}
		if checks != c.checks || found != c.found {
			t.Errorf("%s: %d checks and %d findings, want %d and %d", name, checks, found, c.checks, c.found)
		}
	}
}

// What has just changed may change again without a trace.
func TestAheadLeavesFreshFilesAlone(t *testing.T) {
	checks := 0
	s, err := Open(Config{Dir: t.TempDir(), Fetch: &fakeFetcher{}, Space: plenty, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler),
		Check: func(f *os.File, w Want) error { checks++; return fake(f, w) }})
	if err != nil {
		t.Fatal(err)
	}
	path := s.BlobPath(id("a"))
	if err := os.WriteFile(path, []byte("b"), 0o600); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := os.Chtimes(path, start, start); err != nil { // its ctime is now
		t.Fatal(err)
	}
	s.Ahead(context.Background(), id("a"))
	if time.Since(start) < settled && checks != 0 {
		t.Error("a file that had changed a moment ago was hashed ahead")
	}
}

// A wrong file that Ahead comes upon is Blob's to find, to record and to fetch
// anew; and an Ahead that is over begins nothing.
func TestAheadFindsNothingItself(t *testing.T) {
	checks, found := 0, 0
	s, err := Open(Config{Dir: t.TempDir(), Fetch: &fakeFetcher{}, Space: plenty, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler),
		Check: func(f *os.File, w Want) error { checks++; return fake(f, w) }, Found: func(Finding) error { found++; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	old(t, s.BlobPath(id("a")), "x")
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if s.Ahead(over, id("a")); checks != 0 {
		t.Error("it began although it was over")
	}
	if s.Ahead(context.Background(), id("a")); checks != 1 || found != 0 {
		t.Errorf("%d checks, %d findings", checks, found)
	}
	if _, err := s.Blob(context.Background(), id("a")); err != nil || checks != 2 || found != 1 {
		t.Errorf("%v, %d checks, %d findings", err, checks, found)
	}
}
