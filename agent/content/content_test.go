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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zos-node/zos/zimage"
)

type fakeFetcher struct {
	mu    sync.Mutex
	calls int
	in    chan struct{} // when set, Image waits here
}

func (f *fakeFetcher) Manifest(context.Context, string) (zimage.Manifest, error) {
	return zimage.Manifest{}, nil
}
func (f *fakeFetcher) BlobWithin(_ context.Context, _, path string, _ func(int64) error) (int64, error) {
	return 1, os.WriteFile(path, []byte("b"), 0o600)
}
func (f *fakeFetcher) Image(_ context.Context, _ zimage.Manifest, _, path string) (int64, error) {
	f.mu.Lock()
	f.calls++
	f.mu.Unlock()
	if f.in != nil {
		<-f.in
	}
	return 2, os.WriteFile(path, []byte("image"), 0o600)
}

func newStore(t *testing.T, f *fakeFetcher) *Store {
	t.Helper()
	s, err := Open(t.TempDir(), f, func(string) (int64, error) { return 10000, nil }, slog.New(slog.DiscardHandler))
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

func TestRoomEvictsWhatNobodyUses(t *testing.T) {
	s := newStore(t, &fakeFetcher{})
	ctx := context.Background()
	for i, c := range []string{"a", "b", "c"} {
		if _, err := s.Image(ctx, zimage.Manifest{DiskSize: 5}, id(c)); err != nil {
			t.Fatal(err)
		}
		when := time.Unix(int64(i), 0)
		if err := os.Chtimes(s.ImagePath(id(c)), when, when); err != nil {
			t.Fatal(err)
		}
	}
	s.Pin(s.ImagePath(id("a")))
	// Each file that is gone gives 100 MiB.
	s.free = func(string) (int64, error) {
		free := int64(400)
		for _, c := range []string{"a", "b", "c"} {
			if exists(t, s.ImagePath(id(c))) {
				free -= 100
			}
		}
		return free, nil
	}
	if err := s.Room(200 - reserveMiB); err != nil {
		t.Fatal(err)
	}
	if !exists(t, s.ImagePath(id("a"))) || exists(t, s.ImagePath(id("b"))) || !exists(t, s.ImagePath(id("c"))) {
		t.Error("evicted the wrong one")
	}
	if err := s.Room(1000); err == nil || !exists(t, s.ImagePath(id("a"))) {
		t.Errorf("too much: %v", err)
	}
	s.Unpin(s.ImagePath(id("a")))
	if s.used(s.ImagePath(id("a"))) {
		t.Error("still pinned")
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
	f.in <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	n := f.calls
	f.mu.Unlock()
	if n < 1 || n > 2 {
		t.Errorf("%d at once", n)
	}
	f.in <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestQuarantine(t *testing.T) {
	s := newStore(t, &fakeFetcher{})
	if _, err := s.Blob(context.Background(), id("k")); err != nil {
		t.Fatal(err)
	}
	to, err := s.Quarantine(s.BlobPath(id("k")))
	if err != nil || exists(t, s.BlobPath(id("k"))) || !exists(t, to) {
		t.Error(to, err)
	}
	if to, err := s.Quarantine(s.BlobPath(id("k"))); err != nil || to != "" {
		t.Error(to, err)
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
	s, err := Open(t.TempDir(), &zimage.Fetcher{Mirrors: []string{srv.URL}}, func(string) (int64, error) { return free, nil }, slog.New(slog.DiscardHandler))
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
		t.Errorf("%d MiB are still promised", n)
	}
}

// TestPromisesAreCounted: two downloads that fit one by one do not fit together.
func TestPromisesAreCounted(t *testing.T) {
	f := &fakeFetcher{in: make(chan struct{})}
	s := newStore(t, f)
	s.free = func(string) (int64, error) { return reserveMiB + 100, nil }
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
	if n := s.outstanding(); n != 30 {
		t.Errorf("%d MiB are promised", n)
	}
	f.in <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := s.Room(100); err != nil {
		t.Errorf("after the end: %v", err)
	}
}
