// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/spec/strict"
)

// Store is a folder of images. Its layout is also the mirror protocol: any
// web server that serves the folder is a mirror.
//
//	chunks/<2 hex>/<id>.zst           a chunk, zstd
//	manifests/<id>.json               a manifest under its image id
//	blobs/<sha256>                    a kernel or initramfs
//	by-oci/<digest>-<os>-<arch>.json  which image an OCI manifest became
//	starts/<id>.br                    a start pack of an image, see package pack
//
// A file appears under its name only when it is whole. The store is believed
// no more than a mirror: everything read from it is hashed again.
type Store struct {
	dir    string
	codec  *codec
	chunks atomic.Int64
	bytes  atomic.Int64
}

// Added says what a Store wrote since it was opened.
type Added struct {
	Chunks int64 `json:"chunks"` // chunks that were not there before
	Bytes  int64 `json:"bytes"`  // their size on disk
}

// Hint is what by-oci files hold. It saves an author the conversion; nodes
// never read it.
type Hint struct {
	ID         string `json:"id"`
	VerityRoot string `json:"verityRoot"`
}

// staleAfter is the age at which a temporary file belongs to nobody.
const staleAfter = 24 * time.Hour

// OpenStore opens a folder as a store and makes what is missing of it.
func OpenStore(dir string) (*Store, error) {
	for _, sub := range []string{"chunks", "manifests", "blobs", "by-oci", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
	}
	codec, err := newCodec()
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, codec: codec}
	return s, s.removeStale(time.Now().Add(-staleAfter))
}

// ReadStore opens a folder as a store that is only read: nothing in it is made
// or removed, so it may be somebody else's, or on a disk that is read-only.
func ReadStore(dir string) (*Store, error) {
	codec, err := newCodec()
	if err != nil {
		return nil, err
	}
	return &Store{dir: dir, codec: codec}, nil
}

// removeStale removes what a killed program left.
func (s *Store) removeStale(before time.Time) error {
	list, err := os.ReadDir(filepath.Join(s.dir, "tmp"))
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	for _, e := range list {
		info, err := e.Info()
		if err == nil && info.ModTime().Before(before) {
			err = os.Remove(filepath.Join(s.dir, "tmp", e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("open store: %w", err)
		}
	}
	return nil
}

// Dir is the store's folder.
func (s *Store) Dir() string { return s.dir }

// Added counts since OpenStore.
func (s *Store) Added() Added { return Added{s.chunks.Load(), s.bytes.Load()} }

// temp makes a file without a name, for work in progress.
func (s *Store) temp() (*os.File, error) { return unnamed(filepath.Join(s.dir, "tmp")) }

func chunkName(id string) string { return "chunks/" + id[:2] + "/" + id + ".zst" }

// Chunk reads a chunk and checks it.
func (s *Store) Chunk(c Chunk) ([]byte, error) {
	if !isHex(c.ID) {
		return nil, fmt.Errorf("chunk %q: not 64 hex digits", c.ID)
	}
	wire, err := s.read(chunkName(c.ID), maxWire)
	if err != nil {
		return nil, err
	}
	return s.codec.unpack(wire, c)
}

// putChunk adds a chunk. One that is there is read and checked: a store that
// lost power in the middle of a write heals when the image is made again.
// Chunks are on disk for certain only after sync.
func (s *Store) putChunk(plain []byte) (id string, err error) {
	sum := sha256.Sum256(plain)
	id = hex.EncodeToString(sum[:])
	if _, err := s.Chunk(Chunk{ID: id, Size: int64(len(plain))}); err == nil {
		return id, nil
	}
	err = s.codec.packed(plain, func(wire []byte) error {
		s.chunks.Add(1)
		s.bytes.Add(int64(len(wire)))
		return s.place(chunkName(id), wire)
	})
	if err != nil {
		return "", fmt.Errorf("store chunk: %w", err)
	}
	return id, nil
}

// place makes a file appear, whole. It is on disk for certain only after sync.
func (s *Store) place(name string, b []byte) error { return s.placeFrom(name, bytes.NewReader(b)) }

func (s *Store) placeFrom(name string, r io.Reader) error {
	path := filepath.Join(s.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), "chunk-*")
	if err != nil {
		return err
	}
	_, err = io.Copy(tmp, r)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// sync brings all chunks to the disk, in one go: a flush per chunk would be
// most of the time of a conversion.
func (s *Store) sync() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("sync store: %w", err)
	}
	if err := errors.Join(unix.Syncfs(int(d.Fd())), d.Close()); err != nil {
		return fmt.Errorf("sync store: %w", err)
	}
	return nil
}

// putManifest adds a manifest, after its chunks, and says so under its OCI name.
func (s *Store) putManifest(m Manifest) (id string, err error) {
	b, err := m.Encode()
	if err != nil {
		return "", err
	}
	if _, err := DecodeManifest(b); err != nil { // what no node accepts is not published
		return "", err
	}
	if err := s.sync(); err != nil {
		return "", err
	}
	id = digestOf(b)
	if err := s.write("manifests/"+strings.TrimPrefix(id, "sha256:")+".json", b); err != nil {
		return "", err
	}
	hint, err := strict.Encode(Hint{id, m.Verity.Root})
	if err != nil {
		return "", fmt.Errorf("encode hint: %w", err)
	}
	name, err := hintName(m.OCI.Manifest, m.OCI.Platform)
	if err != nil {
		return "", err
	}
	return id, s.write(name, hint)
}

// Manifest reads a manifest by image id and checks it.
func (s *Store) Manifest(id string) (Manifest, error) {
	h, err := hexOf(id)
	if err != nil {
		return Manifest{}, err
	}
	b, err := s.read("manifests/"+h+".json", MaxManifest)
	if err != nil {
		return Manifest{}, err
	}
	return openManifest(id, b)
}

func openManifest(id string, b []byte) (Manifest, error) {
	if got := digestOf(b); got != id {
		return Manifest{}, fmt.Errorf("manifest %s: %w: hashes to %s", id, ErrMismatch, got)
	}
	m, err := DecodeManifest(b)
	if err != nil {
		return Manifest{}, fmt.Errorf("manifest %s: %w", id, err)
	}
	return m, nil
}

func hintName(oci, platform string) (string, error) {
	h, err := hexOf(oci)
	if err != nil {
		return "", err
	}
	if err := checkPlatform(platform); err != nil {
		return "", err
	}
	return "by-oci/" + h + "-" + strings.ReplaceAll(platform, "/", "-") + ".json", nil
}

// Hint says which image an OCI manifest became, as far as the store knows.
// fs.ErrNotExist means that it does not.
func (s *Store) Hint(oci, platform string) (Hint, error) {
	name, err := hintName(oci, platform)
	if err != nil {
		return Hint{}, err
	}
	b, err := s.read(name, 1<<10)
	if err != nil {
		return Hint{}, err
	}
	var h Hint
	if err := strict.Decode(b, &h, 1<<10); err != nil {
		return Hint{}, fmt.Errorf("%s: %w", name, err)
	}
	return h, nil
}

// AddBlob copies a file into the store and gives its digest.
func (s *Store) AddBlob(path string) (digest string, err error) {
	digest, err = hashFile(path, io.Discard)
	if err != nil {
		return "", fmt.Errorf("add blob: %w", err)
	}
	name := filepath.Join(s.dir, "blobs", strings.TrimPrefix(digest, "sha256:"))
	out, err := renameio.NewPendingFile(name,
		renameio.WithTempDir(filepath.Join(s.dir, "tmp")), renameio.WithPermissions(0o644))
	if err != nil {
		return "", fmt.Errorf("add blob: %w", err)
	}
	defer func() { err = errors.Join(err, out.Cleanup()) }()
	again, err := hashFile(path, out)
	if err != nil {
		return "", fmt.Errorf("add blob: %w", err)
	}
	if again != digest {
		return "", fmt.Errorf("add blob %s: the file changed while it was read", path)
	}
	if err := out.CloseAtomicallyReplace(); err != nil {
		return "", fmt.Errorf("add blob %s: %w", path, err)
	}
	return digest, nil
}

// hashPiece is how much of a file is hashed at a time.
const hashPiece = 256 << 10

// hashFile copies a file of at most MaxBlob bytes and gives its digest.
func hashFile(path string, to io.Writer) (digest string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read blob: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(to, h), io.LimitReader(f, MaxBlob+1), make([]byte, hashPiece))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if n > MaxBlob {
		return "", fmt.Errorf("%s is larger than %d bytes", path, MaxBlob)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// read reads a whole file of the store, of at most limit bytes.
func (s *Store) read(name string, limit int64) ([]byte, error) {
	f, err := os.Open(filepath.Join(s.dir, filepath.FromSlash(name)))
	if err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: %w: longer than %d bytes", name, ErrMismatch, limit)
	}
	return b, nil
}

// write puts a small file in place at once and on disk.
func (s *Store) write(name string, b []byte) error {
	err := renameio.WriteFile(filepath.Join(s.dir, filepath.FromSlash(name)), b, 0o644,
		renameio.WithTempDir(filepath.Join(s.dir, "tmp")))
	if err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	return nil
}
