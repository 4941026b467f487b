// SPDX-License-Identifier: Apache-2.0

package content

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/zimage"
)

type fakeFetcher struct {
	mu    sync.Mutex
	calls int
	in    chan struct{} // when set, ImageBeside waits here
}

func (f *fakeFetcher) ManifestAhead(ctx context.Context, id string) (zimage.Manifest, *zimage.PackAhead, error) {
	m, err := f.Manifest(ctx, id)
	return m, nil, err
}

func (f *fakeFetcher) Manifest(context.Context, string) (zimage.Manifest, error) {
	return zimage.Manifest{}, nil
}
func (f *fakeFetcher) BlobWithin(_ context.Context, _, path string, _ func(int64) error) (int64, error) {
	return 1, os.WriteFile(path, []byte("b"), 0o600)
}
func (f *fakeFetcher) ImageBeside(_ context.Context, _ zimage.Manifest, _, path string, _ *zimage.Donors) (int64, error) {
	f.mu.Lock()
	f.calls++
	f.mu.Unlock()
	if f.in != nil {
		<-f.in
	}
	return 2, os.WriteFile(path, []byte("image"), 0o600)
}

// fake is Verify for what the fakeFetcher brings.
func fake(f *os.File, w Want) error {
	b, err := os.ReadFile(f.Name())
	if err != nil {
		return err
	}
	want := "b"
	if w.Image != nil {
		want = "image"
	}
	if string(b) != want {
		return zimage.ErrMismatch
	}
	return nil
}

func plenty(string) (Space, error) { return Space{FreeMiB: 10000, QuotaMiB: 10000}, nil }

func newStore(t *testing.T, f Fetcher) *Store {
	t.Helper()
	s, err := Open(Config{Dir: t.TempDir(), Fetch: f, Space: plenty, Check: fake, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func id(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func TestRoomEvictsWhatNobodyNeeds(t *testing.T) {
	s := newStore(t, &fakeFetcher{})
	ctx := context.Background()
	for i, c := range []string{"a", "b", "c"} {
		if _, err := s.Image(ctx, zimage.Manifest{DiskSize: 5}, id(c)); err != nil {
			t.Fatal(err)
		}
		// Each takes 100 MiB.
		f, err := os.OpenFile(s.ImagePath(id(c)), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 100*mib), f.Close()); err != nil {
			t.Fatal(err)
		}
		when := time.Unix(int64(i), 0)
		if err := os.Chtimes(s.ImagePath(id(c)), when, when); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Pin(1, s.ImagePath(id("a"))); err != nil {
		t.Fatal(err)
	}
	s.Space = func(string) (Space, error) {
		free := int64(400)
		for _, c := range []string{"a", "b", "c"} {
			if exists(t, s.ImagePath(id(c))) {
				free -= 100
			}
		}
		return Space{FreeMiB: free, QuotaMiB: 10000}, nil
	}
	if err := s.Room(1000); !errors.Is(err, zimage.ErrNoRoom) || !exists(t, s.ImagePath(id("b"))) || !exists(t, s.ImagePath(id("c"))) {
		t.Errorf("too much: %v", err)
	}
	if err := s.Room(200 - reserveMiB); err != nil {
		t.Fatal(err)
	}
	if !exists(t, s.ImagePath(id("a"))) || exists(t, s.ImagePath(id("b"))) || !exists(t, s.ImagePath(id("c"))) {
		t.Error("evicted the wrong one")
	}
	u, err := s.Usage()
	if err != nil || u.Items != 2 || u.MiB != 200 || u.NeededMiB != 100 || u.Evictions != 1 || u.EvictedMiB != 100 || u.QuotaMiB != 10000 {
		t.Errorf("usage %+v, %v", u, err)
	}
	// The next agent finds the pin.
	again, err := Open(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Room(301 - reserveMiB); !errors.Is(err, zimage.ErrNoRoom) || !exists(t, s.ImagePath(id("a"))) {
		t.Errorf("the pin is forgotten: %v", err)
	}
	if err := again.Retain(1, 7); err != nil {
		t.Fatal(err)
	}
	if err := again.Room(301 - reserveMiB); !errors.Is(err, zimage.ErrNoRoom) {
		t.Errorf("although its deployment is there: %v", err)
	}
	if err := again.Retain(7); err != nil {
		t.Fatal(err)
	}
	if err := again.Room(400 - reserveMiB); err != nil || exists(t, s.ImagePath(id("a"))) {
		t.Errorf("still pinned: %v", err)
	}
}

func TestOneAtATime(t *testing.T) {
	f := &fakeFetcher{in: make(chan struct{})}
	s := newStore(t, f)
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := s.Image(context.Background(), zimage.Manifest{}, id("a"))
			done <- err
		}()
	}
	f.in <- struct{}{} // nobody waits here a second time
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if f.calls != 1 {
		t.Errorf("fetched %d times", f.calls)
	}
}

// TestQuarantine: what a guest found wrong is recorded, and then moved.
func TestQuarantine(t *testing.T) {
	s := newStore(t, &fakeFetcher{})
	path := s.ImagePath(id("k"))
	if _, err := s.Image(context.Background(), zimage.Manifest{}, id("k")); err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	if err := s.Quarantine(path, func(string) error { return full }); !errors.Is(err, full) || !exists(t, path) {
		t.Errorf("without a record: %v", err)
	}
	var said string
	record := func(detail string) error { said = detail; return nil }
	if err := s.Quarantine(path, record); err != nil || exists(t, path) {
		t.Error(err)
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(said, "disk file in quarantine as "), ": ")
	if !exists(t, name) {
		t.Errorf("nothing is there as it said: %s", said)
	}
	if err := s.Quarantine(path, record); err != nil || !strings.Contains(said, "already") {
		t.Error(said, err)
	}
}

// TestWrongFiles: a file that was changed behind its check is an incident, is
// kept to be looked at, and is fetched anew.
func TestWrongFiles(t *testing.T) {
	s := newStore(t, &fakeFetcher{})
	ctx := context.Background()
	var found []Finding
	s.Found = func(f Finding) error {
		if !exists(t, f.Path) {
			t.Errorf("%s is gone before it was recorded", f.Path)
		}
		found = append(found, f)
		return nil
	}
	get := map[string]func() (int64, error){
		s.BlobPath(id("k")):  func() (int64, error) { return s.Blob(ctx, id("k")) },
		s.ImagePath(id("i")): func() (int64, error) { return s.Image(ctx, zimage.Manifest{DiskSize: 5}, id("i")) },
	}
	for path, get := range get {
		if n, err := get(); err != nil || n == 0 {
			t.Fatalf("%s: %d, %v", path, n, err)
		}
		if n, err := get(); err != nil || n != 0 || len(found) != 0 {
			t.Errorf("%s, once more: %d, %v, %v", path, n, err, found)
		}
		if err := errors.Join(s.Pin(9, path), os.WriteFile(path, []byte("other"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if n, err := get(); err != nil || n == 0 {
			t.Errorf("%s, altered: %d, %v", path, n, err)
		}
		if len(found) != 1 || found[0].Path != path || !slices.Equal(found[0].Owners, []int64{9}) || !errors.Is(found[0].Err, zimage.ErrMismatch) {
			t.Fatalf("%s: found %+v", path, found)
		}
		if b, err := os.ReadFile(found[0].Quarantine); err != nil || string(b) != "other" {
			t.Errorf("in quarantine: %q, %v", b, err)
		}
		found = nil
	}
	// What cannot be recorded stays where it is, and nobody gets it.
	full := errors.New("disk full")
	s.Found = func(Finding) error { return full }
	for path, get := range get {
		if err := os.WriteFile(path, []byte("other"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := get(); !errors.Is(err, full) || !exists(t, path) {
			t.Errorf("%s, without a record: %v", path, err)
		}
	}
}

// TestBlobsNeedRoom downloads from a real mirror to a store with little room.
func TestBlobsNeedRoom(t *testing.T) {
	mirror, err := zimage.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	kernel := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(kernel, make([]byte, 3*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	digest, err := mirror.AddBlob(kernel)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(zimage.Handler(mirror))
	defer srv.Close()
	var free int64
	s, err := Open(Config{Dir: t.TempDir(), Fetch: &zimage.Fetcher{Mirrors: []string{srv.URL}}, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler),
		Space: func(string) (Space, error) { return Space{FreeMiB: free, QuotaMiB: 100}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	free = reserveMiB + 2
	if _, err := s.Blob(context.Background(), digest); !errors.Is(err, zimage.ErrNoRoom) || !strings.Contains(err.Error(), "needs 3 MiB, 66 MiB are free (64 MiB are kept") {
		t.Errorf("without room: %v", err)
	}
	if exists(t, s.BlobPath(digest)) {
		t.Error("it is there")
	}
	free = reserveMiB + 3
	if _, err := s.Blob(context.Background(), digest); err != nil {
		t.Error(err)
	}
	if n := s.outstanding(); n != 0 {
		t.Errorf("%d bytes are still promised", n)
	}
}

// TestPromisesAreCounted: two downloads that fit one by one do not fit together.
func TestPromisesAreCounted(t *testing.T) {
	f := &fakeFetcher{in: make(chan struct{})}
	s := newStore(t, f)
	s.Space = func(string) (Space, error) { return Space{FreeMiB: reserveMiB + 100, QuotaMiB: 1000}, nil }
	done := make(chan error, 1)
	go func() {
		_, err := s.Image(context.Background(), zimage.Manifest{DiskSize: 60 * mib}, id("a"))
		done <- err
	}()
	for s.outstanding() == 0 {
		runtime.Gosched()
	}
	if _, err := s.Image(context.Background(), zimage.Manifest{DiskSize: 60 * mib}, id("b")); !errors.Is(err, zimage.ErrNoRoom) {
		t.Errorf("beside the first: %v", err)
	}
	// What the first has written is in the free room already.
	if err := os.WriteFile(s.ImagePath(id("a"))+partExt, make([]byte, 30*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := s.outstanding(); n != 30*mib {
		t.Errorf("%d bytes are promised", n)
	}
	f.in <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := s.Room(100); err != nil {
		t.Errorf("after the end: %v", err)
	}
}
