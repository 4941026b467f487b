// SPDX-License-Identifier: Apache-2.0

// Package content keeps the verified files that machines run from: kernels
// and initramfs by digest, disk images by image id.
//
// The store is a cache on a tmpfs, so it costs memory: what a deployment uses
// is pinned, what nobody uses stays only until its room is needed. A file that
// is there is never believed: Get asks the Fetcher, which hashes it again.
package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zos-node/zos/zimage"
)

// Fetcher brings content from mirrors and checks it; zimage.Fetcher does.
type Fetcher interface {
	Manifest(ctx context.Context, id string) (zimage.Manifest, error)
	Blob(ctx context.Context, digest, path string) (int64, error)
	Image(ctx context.Context, m zimage.Manifest, id, path string) (int64, error)
}

// Store is the node's content. Its methods are safe to call from several
// goroutines.
type Store struct {
	dir   string
	fetch Fetcher
	log   *slog.Logger
	free  func(path string) (int64, error) // MiB

	mu   sync.Mutex
	pins map[string]int
	busy map[string]chan struct{} // closed when whoever works on a path is done
}

const (
	blobsDir      = "blobs"
	imagesDir     = "images"
	quarantineDir = "quarantine"
	imageExt      = ".img"
	mib           = 1 << 20
	// reserveMiB is left free for everything else that lives in the tmpfs.
	reserveMiB = 64
)

// Open makes a store of a folder; free tells how many MiB it may still take.
func Open(dir string, f Fetcher, free func(dir string) (int64, error), log *slog.Logger) (*Store, error) {
	for _, d := range []string{blobsDir, imagesDir, quarantineDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	return &Store{dir: dir, fetch: f, log: log, free: free, pins: map[string]int{}, busy: map[string]chan struct{}{}}, nil
}

func bare(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// BlobPath is where a kernel or initramfs stands.
func (s *Store) BlobPath(digest string) string { return filepath.Join(s.dir, blobsDir, bare(digest)) }

// ImagePath is where an image's disk stands.
func (s *Store) ImagePath(id string) string {
	return filepath.Join(s.dir, imagesDir, bare(id)+imageExt)
}

// Manifest gets the manifest of an image, verified.
func (s *Store) Manifest(ctx context.Context, id string) (zimage.Manifest, error) {
	return s.fetch.Manifest(ctx, id)
}

// Blob makes sure that a blob is there, whole and right, and gives how many
// bytes had to be fetched for that.
func (s *Store) Blob(ctx context.Context, digest string) (int64, error) {
	path := s.BlobPath(digest)
	release, err := s.take(ctx, path)
	if err != nil {
		return 0, err
	}
	defer release()
	return s.fetch.Blob(ctx, digest, path)
}

// Image makes sure that an image's disk is there, whole and right.
func (s *Store) Image(ctx context.Context, m zimage.Manifest, id string) (int64, error) {
	path := s.ImagePath(id)
	release, err := s.take(ctx, path)
	if err != nil {
		return 0, err
	}
	defer release()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := s.Room((m.DiskSize + mib - 1) / mib); err != nil {
			return 0, fmt.Errorf("image %s: %w", id, err)
		}
	}
	return s.fetch.Image(ctx, m, id, path)
}

// take waits until nobody else works on a path: two deployments that want the
// same image fetch it once.
func (s *Store) take(ctx context.Context, path string) (release func(), err error) {
	for {
		s.mu.Lock()
		other, taken := s.busy[path]
		if !taken {
			mine := make(chan struct{})
			s.busy[path] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.busy, path)
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-other:
		}
	}
}

// Pin keeps files from being evicted. It comes before Get, so that what was
// just verified cannot go away.
func (s *Store) Pin(paths ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range paths {
		s.pins[p]++
	}
}

// Unpin takes Pin back.
func (s *Store) Unpin(paths ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range paths {
		if s.pins[p]--; s.pins[p] <= 0 {
			delete(s.pins, p)
		}
	}
}

// Quarantine takes a disk file that a guest found wrong out of use and keeps
// it to be looked at. VMs that have it open are not touched by that. It gives
// the new path, "" when the file is not there any more.
func (s *Store) Quarantine(path string) (string, error) {
	to := filepath.Join(s.dir, quarantineDir, fmt.Sprintf("%d-%s", time.Now().UnixNano(), filepath.Base(path)))
	err := os.Rename(path, to)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("quarantine: %w", err)
	}
	return to, nil
}

// Room makes room for so many MiB by evicting what nobody uses, the oldest
// first, quarantined files last.
func (s *Store) Room(need int64) error {
	type file struct {
		path string
		mod  time.Time
		last bool
	}
	var all []file
	for _, d := range []string{blobsDir, imagesDir, quarantineDir} {
		list, err := os.ReadDir(filepath.Join(s.dir, d))
		if err != nil {
			return fmt.Errorf("store: %w", err)
		}
		for _, e := range list {
			info, err := e.Info()
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				return fmt.Errorf("store: %w", err)
			}
			all = append(all, file{filepath.Join(s.dir, d, e.Name()), info.ModTime(), d == quarantineDir})
		}
	}
	slices.SortFunc(all, func(a, b file) int {
		if a.last != b.last {
			if b.last {
				return -1
			}
			return 1
		}
		return a.mod.Compare(b.mod)
	})
	for {
		free, err := s.free(s.dir)
		if err != nil {
			return err
		}
		if free >= need+reserveMiB {
			return nil
		}
		if len(all) == 0 {
			return fmt.Errorf("needs %d MiB, %d MiB are free (%d MiB are kept for the node), and nothing can be evicted", need, free, reserveMiB)
		}
		f := all[0]
		all = all[1:]
		if s.used(f.path) {
			continue
		}
		s.log.Info("evicted to make room", "file", f.path, "needMiB", need)
		if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("store: %w", err)
		}
	}
}

// used says whether a file, or what it is a part of, is pinned or worked on.
func (s *Store) used(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range []string{path, strings.TrimSuffix(path, filepath.Ext(path))} {
		if _, busy := s.busy[p]; busy || s.pins[p] > 0 {
			return true
		}
	}
	return false
}
