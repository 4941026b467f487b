// SPDX-License-Identifier: Apache-2.0

// Package zimagetest makes OCI images in memory, for tests of other packages
// that need a Zero-Image to work with.
package zimagetest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/zos-node/zos/zimage"
)

// source is an image of one plain layer.
type source struct {
	manifest []byte
	blobs    map[string][]byte
}

// Image makes an image of files with given sizes. Content follows from name
// and size, and does not compress.
func Image(t testing.TB, files map[string]int) zimage.Source {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		b := make([]byte, files[name])
		if _, err := rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, name, len(b)))).Read(b); err != nil {
			t.Fatal(err)
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(b))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := &source{blobs: map[string][]byte{}}
	put := func(b []byte) string {
		sum := sha256.Sum256(b)
		digest := "sha256:" + hex.EncodeToString(sum[:])
		s.blobs[digest] = b
		return digest
	}
	diff := put(layer.Bytes())
	cfg := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%q]}}`, diff)
	s.manifest = fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q,"size":%d},"layers":[{"digest":%q,"size":%d}]}`,
		put(cfg), len(cfg), diff, layer.Len())
	return s
}

func (s *source) Manifest(context.Context, string) ([]byte, error) { return s.manifest, nil }

func (s *source) Blob(_ context.Context, digest string) (io.ReadCloser, error) {
	b, ok := s.blobs[digest]
	if !ok {
		return nil, fmt.Errorf("blob %s: %w", digest, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (s *source) Close() error { return nil }
