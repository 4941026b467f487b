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

	"github.com/zos-node/zos/spec/strict"
)

// Object is one file of a store, under its name in the mirror protocol, and
// checked against that name.
type Object struct {
	Name string // as "chunks/ab/ab….zst"
	Kind string // content type
	Size int64
	Sum  [sha256.Size]byte // of the bytes as they travel
	Body io.ReadSeeker
}

func object(name string, b []byte) Object {
	return Object{Name: name, Kind: servable(name), Size: int64(len(b)), Sum: sha256.Sum256(b), Body: bytes.NewReader(b)}
}

// ChunkObject reads a chunk in its wire form.
func (s *Store) ChunkObject(c Chunk) (Object, error) {
	if !isHex(c.ID) {
		return Object{}, fmt.Errorf("chunk %q: not 64 hex digits", c.ID)
	}
	wire, err := s.read(chunkName(c.ID), maxWire)
	if err != nil {
		return Object{}, err
	}
	if _, err := s.codec.unpack(wire, c); err != nil {
		return Object{}, err
	}
	return object(chunkName(c.ID), wire), nil
}

// ChunkObjectName is the name under which a mirror has a chunk.
func ChunkObjectName(c Chunk) string { return chunkName(c.ID) }

// ChunkObjectSize is the length of a chunk's wire form here. Other programs, and
// other versions of this one, may have packed the same chunk to another length.
func (s *Store) ChunkObjectSize(c Chunk) (int64, error) {
	if !isHex(c.ID) {
		return 0, fmt.Errorf("chunk %q: not 64 hex digits", c.ID)
	}
	info, err := os.Stat(filepath.Join(s.dir, filepath.FromSlash(chunkName(c.ID))))
	if err != nil {
		return 0, fmt.Errorf("read store: %w", err)
	}
	return info.Size(), nil
}

// ImageObjects gives the other files of an image: its SPDX document, its
// manifest, and the hint under its OCI name, in the order in which a mirror
// must get them, after the chunks.
func (s *Store) ImageObjects(id string) (Manifest, []Object, error) {
	m, err := s.Manifest(id)
	if err != nil {
		return Manifest{}, nil, err
	}
	b, err := m.Encode()
	if err != nil {
		return Manifest{}, nil, err
	}
	doc, err := s.SBOM(m)
	if err != nil {
		return Manifest{}, nil, err
	}
	hint, err := strict.Encode(Hint{id, m.Verity.Root})
	if err != nil {
		return Manifest{}, nil, fmt.Errorf("encode hint: %w", err)
	}
	name, err := hintName(m.OCI.Manifest, m.OCI.Platform)
	if err != nil {
		return Manifest{}, nil, err
	}
	blob := "blobs/" + strings.TrimPrefix(m.SBOM, "sha256:")
	return m, []Object{object(blob, doc), object("manifests/"+strings.TrimPrefix(id, "sha256:")+".json", b), object(name, hint)}, nil
}

// BlobObject opens a kernel or initramfs. The caller closes it.
func (s *Store) BlobObject(digest string) (o Object, close func() error, err error) {
	h, err := hexOf(digest)
	if err != nil {
		return Object{}, nil, err
	}
	f, err := os.Open(filepath.Join(s.dir, "blobs", h))
	if err != nil {
		return Object{}, nil, fmt.Errorf("blob: %w", err)
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, MaxBlob+1))
	if err == nil && hex.EncodeToString(sum.Sum(nil)) != h {
		err = fmt.Errorf("%w: it hashes to %x", ErrMismatch, sum.Sum(nil))
	}
	if err != nil {
		return Object{}, nil, errors.Join(fmt.Errorf("blob %s: %w", digest, err), f.Close())
	}
	return Object{Name: "blobs/" + h, Kind: servable("blobs/" + h), Size: n, Sum: [sha256.Size]byte(sum.Sum(nil)), Body: f}, f.Close, nil
}

// HasImage tells a store's image ids from other digests.
func (s *Store) HasImage(id string) (bool, error) { return s.has("manifests", id, ".json") }

// HasBlob tells a store's kernels and initramfs from other digests.
func (s *Store) HasBlob(digest string) (bool, error) { return s.has("blobs", digest, "") }

func (s *Store) has(folder, digest, ending string) (bool, error) {
	h, err := hexOf(digest)
	if err != nil {
		return false, err
	}
	_, err = os.Stat(filepath.Join(s.dir, folder, h+ending))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
