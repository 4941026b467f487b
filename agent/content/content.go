// SPDX-License-Identifier: Apache-2.0

// Package content keeps the verified files that machines run from: kernels
// and initramfs by digest, disk images by image id.
//
// The store is a cache on a tmpfs, so it costs memory: what a claimed
// deployment needs is pinned, what nobody needs stays only until its room is
// wanted (Decide). A file that is there is never believed: Blob and Image hash
// it again (a blob perhaps some moments ahead), and Scrub hashes everything
// again all the time. Chunks that a new image has in common with others that are
// here are not fetched but read from those, and hashed as any (Donors). A file
// that is not what its name says is an incident (Finding): it is recorded, and
// then put into quarantine, in that order, so that an agent that dies in between
// records it twice rather than never.
//
//	blobs/<sha256>       a kernel or initramfs
//	images/<id>.img      a disk; <id>.json is its manifest
//	images/<id>.img.part a disk on its way, .img.have what of it is there
//	pins/<deployment>    what a deployment needs, as a JSON list of names
//	quarantine/<time>-…  files that were wrong
//
// A file gets its name in one rename, when it is whole and verified, and pins
// are written before what they hold is used: an agent may die at any
// instruction, and the next one finds nothing wrong under a right name, and
// every pin (TestKilledAtEveryStep).
package content

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/zimage"
)

// Fetcher brings content from mirrors and checks it; zimage.Fetcher does.
type Fetcher interface {
	Manifest(ctx context.Context, id string) (zimage.Manifest, error)
	ManifestAhead(ctx context.Context, id string) (zimage.Manifest, *zimage.PackAhead, error)
	BlobWithin(ctx context.Context, digest, path string, room func(bytes int64) error) (int64, error)
	ImageBeside(ctx context.Context, m zimage.Manifest, id, path string, near *zimage.Donors) (int64, error)
}

// Config is what a store needs.
type Config struct {
	Dir   string
	Fetch Fetcher
	// Space is asked whenever room is needed.
	Space func(dir string) (Space, error)
	// Found, which may be nil, hears of every file that is wrong before it is
	// taken out of use; its error leaves the file where it is.
	Found func(Finding) error
	// Check is Verify, but for tests whose files are no real ones.
	Check func(f *os.File, w Want) error
	Clock clock.Clock
	Log   *slog.Logger
}

// Space is what there is for the store.
type Space struct {
	FreeMiB  int64 // what the file system can still take
	QuotaMiB int64 // what the store may be in all
}

// Store is the node's content. Its methods are safe to call from several
// goroutines.
type Store struct {
	Config
	room sync.Mutex // held while room is made, so that it is not promised twice

	mu       sync.Mutex
	pins     map[int64]map[string]bool    // names by deployment
	busy     map[string]chan struct{}     // closed when whoever works on a path is done
	promised map[string]int64             // bytes that a file on its way may grow to
	ready    map[string]fresh             // what Ahead has found right
	packs    map[string]*zimage.PackAhead // by image id: asked for by ManifestAhead, and not taken yet
	counts   counts
}

const (
	blobsDir      = "blobs"
	imagesDir     = "images"
	pinsDir       = "pins"
	quarantineDir = "quarantine"
	imageExt      = ".img"
	manifestExt   = ".json"
	partExt       = ".part" // of what the Fetcher is writing
	haveExt       = ".have" // what of it is there
	mib           = 1 << 20
	// reserveMiB is left free for everything else that lives in the tmpfs.
	reserveMiB = 64
)

// Open makes a store of a folder, or takes up what an earlier agent left.
func Open(c Config) (*Store, error) {
	for _, d := range []string{blobsDir, imagesDir, pinsDir, quarantineDir} {
		if err := os.MkdirAll(filepath.Join(c.Dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	if c.Check == nil {
		c.Check = Verify
	}
	s := &Store{Config: c, pins: map[int64]map[string]bool{}, busy: map[string]chan struct{}{}, promised: map[string]int64{}, ready: map[string]fresh{}, packs: map[string]*zimage.PackAhead{}}
	return s, s.loadPins()
}

func bare(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// BlobPath is where a kernel or initramfs stands.
func (s *Store) BlobPath(digest string) string { return filepath.Join(s.Dir, blobsDir, bare(digest)) }

// ImagePath is where an image's disk stands.
func (s *Store) ImagePath(id string) string {
	return filepath.Join(s.Dir, imagesDir, bare(id)+imageExt)
}

func (s *Store) manifestPath(id string) string {
	return filepath.Join(s.Dir, imagesDir, bare(id)+manifestExt)
}

// Manifest gets the manifest of an image, verified: the one that is here, or
// one from a mirror. What runs is thus started again without any mirror.
func (s *Store) Manifest(ctx context.Context, id string) (zimage.Manifest, error) {
	return s.manifest(ctx, id, s.Fetch.Manifest)
}

func (s *Store) manifest(ctx context.Context, id string, fetch func(context.Context, string) (zimage.Manifest, error)) (zimage.Manifest, error) {
	m, err := s.kept(id)
	if err == nil {
		return m, nil
	}
	if errors.Is(err, zimage.ErrMismatch) {
		err = s.condemn(s.manifestPath(id), err)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	if m, err = fetch(ctx, id); err != nil {
		return m, err
	}
	return m, s.keep(m, id)
}

// kept reads the manifest that is here and holds it against its id.
func (s *Store) kept(id string) (zimage.Manifest, error) {
	b, err := os.ReadFile(s.manifestPath(id))
	if err != nil {
		return zimage.Manifest{}, fmt.Errorf("kept manifest: %w", err)
	}
	sum := sha256.Sum256(b)
	if got := hex.EncodeToString(sum[:]); got != bare(id) {
		return zimage.Manifest{}, fmt.Errorf("kept manifest %s: %w: hashes to %s", id, zimage.ErrMismatch, got)
	}
	m, err := zimage.DecodeManifest(b)
	if err != nil {
		return m, fmt.Errorf("kept manifest %s: %w", id, err)
	}
	return m, nil
}

// keep keeps a manifest, which Scrub needs. One that is not what its id says
// is not kept, whoever gave it.
func (s *Store) keep(m zimage.Manifest, id string) error {
	path := s.manifestPath(id)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	b, err := m.Encode()
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != bare(id) {
		return nil
	}
	if err := renameio.WriteFile(path, b, 0o400); err != nil {
		return s.full(path, fmt.Errorf("keep manifest: %w", err))
	}
	return nil
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
	if s.hashed(path) {
		s.touch(path)
		return 0, nil
	}
	if right, err := s.right(path, Want{Digest: digest, Goroutines: 1}); right || err != nil {
		return 0, err
	}
	n, err := s.Fetch.BlobWithin(ctx, digest, path, func(n int64) error { return s.promise(path, n) })
	return n, s.arrived(path, err)
}

// Image makes sure that an image's disk is there, whole and right. What other
// images here have of it is not fetched.
func (s *Store) Image(ctx context.Context, m zimage.Manifest, id string) (int64, error) {
	near := s.Donors(m, id)
	n, err := s.image(ctx, m, id, near)
	s.Examine(ctx, near) // while nothing is held here: it waits for whoever works on those
	return n, err
}

func (s *Store) image(ctx context.Context, m zimage.Manifest, id string, near *zimage.Donors) (int64, error) {
	path := s.ImagePath(id)
	release, err := s.take(ctx, path)
	if err != nil {
		return 0, err
	}
	defer release()
	if err := s.keep(m, id); err != nil {
		return 0, err
	}
	if right, err := s.right(path, Want{Digest: id, Image: &m, Goroutines: runtime.GOMAXPROCS(0)}); right || err != nil {
		return 0, err
	}
	if err := s.promise(path, m.DiskSize-written(path)); err != nil {
		return 0, fmt.Errorf("image %s: %w", id, err)
	}
	n, err := s.Fetch.ImageBeside(ctx, m, id, path, near)
	if chunks, bytes := near.Given(); chunks > 0 {
		s.Log.Info("other images here had a part of an image", "image", id, "chunks", chunks, "bytes", bytes, "fetched", n)
	}
	return n, s.arrived(path, err)
}

// arrived ends a download.
func (s *Store) arrived(path string, err error) error {
	if err != nil {
		return s.full(path, err)
	}
	s.touch(path)
	s.say()
	return nil
}

// touch notes a use: Decide evicts what was not used for longest.
func (s *Store) touch(path string) {
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Log.Warn("the last use of a file cannot be noted", "file", path, "err", err)
	}
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

// Want is what a file has to be.
type Want struct {
	Digest     string            // of a blob; of an image, its id
	Image      *zimage.Manifest  // of a disk
	Goroutines int               // that may hash at once
	Before     func(n int) error // called ahead of each read; may be nil
}

// Verify hashes a whole file. An error of a wrong one is a zimage.ErrMismatch.
func Verify(f *os.File, w Want) error {
	if w.Image != nil {
		return zimage.VerifyFile(f, *w.Image, w.Goroutines, w.Before)
	}
	const piece = 256 << 10
	buf, h := make([]byte, piece), sha256.New()
	for {
		if w.Before != nil {
			if err := w.Before(len(buf)); err != nil {
				return err
			}
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read blob: %w", err)
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != bare(w.Digest) {
		return fmt.Errorf("%s: %w: hashes to %s", f.Name(), zimage.ErrMismatch, got)
	}
	return nil
}

// right says whether a file is there and right. A wrong one is taken out of
// use; it is fetched anew then.
func (s *Store) right(path string, w Want) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("store: %w", err)
	}
	err = s.Check(f, w)
	if err = errors.Join(err, f.Close()); errors.Is(err, zimage.ErrMismatch) {
		return false, s.condemn(path, err)
	}
	if err != nil {
		return false, err
	}
	s.touch(path)
	return true, nil
}
