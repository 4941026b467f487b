// SPDX-License-Identifier: Apache-2.0

package content

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
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
func (f *fakeFetcher) Blob(_ context.Context, _, path string) (int64, error) {
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
