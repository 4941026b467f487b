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

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/zimage"
)

// Fetcher brings content from mirrors and checks it; zimage.Fetcher does.
type Fetcher interface {
	Manifest(ctx context.Context, id string) (zimage.Manifest, error)
	BlobWithin(ctx context.Context, digest, path string, room func(bytes int64) error) (int64, error)
	Image(ctx context.Context, m zimage.Manifest, id, path string) (int64, error)
}

// Store is the node's content. Its methods are safe to call from several
// goroutines.
type Store struct {
	dir   string
	fetch Fetcher
	log   *slog.Logger
	free  func(path string) (int64, error) // MiB

	room sync.Mutex // held while room is made, so that it is not promised twice

	mu       sync.Mutex
	pins     map[string]int
	busy     map[string]chan struct{} // closed when whoever works on a path is done
	promised map[string]int64         // bytes that a file on its way may grow to
}

const (
	blobsDir      = "blobs"
	imagesDir     = "images"
	quarantineDir = "quarantine"
	imageExt      = ".img"
	partExt       = ".part" // of what the Fetcher is writing
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
	return &Store{dir: dir, fetch: f, log: log, free: free, pins: map[string]int{}, busy: map[string]chan struct{}{}, promised: map[string]int64{}}, nil
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
	return s.fetch.BlobWithin(ctx, digest, path, func(n int64) error {
		return s.promise(path, n)
	})
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
		if err := s.promise(path, m.DiskSize-written(path)); err != nil {
			return 0, fmt.Errorf("image %s: %w", id, err)
		}
	}
	return s.fetch.Image(ctx, m, id, path)
}

// promise makes room for bytes that are about to be written for a path, and
// counts what this and other downloads were promised and have not written yet:
// two that fit one by one need not fit together.
func (s *Store) promise(path string, bytes int64) error {
	s.room.Lock()
	defer s.room.Unlock()
	s.mu.Lock()
	delete(s.promised, path) // it asks anew, for instance of another mirror
	s.mu.Unlock()
	if err := s.makeRoom(ceil(bytes)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.promised[path] = written(path) + bytes
	return nil
}

// outstanding is what is promised and not written yet, in MiB.
func (s *Store) outstanding() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum int64
	for path, size := range s.promised {
		sum += max(size-written(path), 0)
	}
	return ceil(sum)
}

func ceil(bytes int64) int64 { return (bytes + mib - 1) / mib }

// written is what a file on its way takes up; an image has holes until then.
func written(path string) int64 {
	var st unix.Stat_t
	if err := unix.Stat(path+partExt, &st); err != nil {
		return 0 // not begun, or finished
	}
	const block = 512
	return st.Blocks * block
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
				delete(s.promised, path)
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
// first, quarantined files last. It returns a zimage.ErrNoRoom when that is not
// enough.
func (s *Store) Room(need int64) error {
	s.room.Lock()
	defer s.room.Unlock()
	return s.makeRoom(need)
}

func (s *Store) makeRoom(need int64) error {
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
		promised := s.outstanding()
		if free >= need+reserveMiB+promised {
			return nil
		}
		if len(all) == 0 {
			return fmt.Errorf("%w: needs %d MiB, %d MiB are free (%d MiB are kept for the node, %d MiB for downloads on their way), and nothing can be evicted",
				zimage.ErrNoRoom, need, free, reserveMiB, promised)
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
