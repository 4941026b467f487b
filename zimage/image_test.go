// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// item is one tar entry.
type item struct {
	tar.Header
	body []byte
}

func file(name string, body []byte) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body)), ModTime: stamp}, body}
}

func folder(name string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: stamp}, nil}
}

func link(name, target string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target, Mode: 0o600, ModTime: stamp}, nil}
}

func symlink(name, target string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777, ModTime: stamp}, nil}
}

// with changes a header.
func (i item) with(change func(*tar.Header)) item { change(&i.Header); return i }

var stamp = time.Unix(1700000000, 0)

// noise is content that does not compress and is the same in every run.
func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	if _, err := rand.NewChaCha8([32]byte{seed}).Read(b); err != nil {
		panic(err)
	}
	return b
}

func tarOf(t testing.TB, items []item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		if err := w.WriteHeader(&i.Header); err != nil {
			t.Fatalf("%q: %v", i.Name, err)
		}
		if _, err := w.Write(i.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// memory is an OCI image in memory.
type memory struct {
	manifest []byte
	blobs    map[string][]byte
}

func (m *memory) Close() error { return nil }

func (m *memory) Manifest(context.Context, string) ([]byte, error) { return m.manifest, nil }

func (m *memory) Blob(_ context.Context, digest string) (io.ReadCloser, error) {
	b, ok := m.blobs[digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (m *memory) put(b []byte) map[string]any {
	m.blobs[digestOf(b)] = b
	return map[string]any{"digest": digestOf(b), "size": len(b)}
}

// ociImage makes an image whose layers take turns in their compression.
func ociImage(t testing.TB, layers ...[]item) *memory {
	t.Helper()
	var tars [][]byte
	for _, l := range layers {
		tars = append(tars, tarOf(t, l))
	}
	return ociImageOf(t, map[string]any{
		"User": "", "Env": []string{"PATH=/bin"}, "Entrypoint": []string{"/app"}, "WorkingDir": "/w",
	}, tars...)
}

func ociImageOf(t testing.TB, config map[string]any, tars ...[]byte) *memory {
	t.Helper()
	m := &memory{blobs: map[string][]byte{}}
	descriptors, diffIDs := []any{}, []string{}
	for i, plain := range tars {
		diffIDs = append(diffIDs, digestOf(plain))
		wire := plain
		var buf bytes.Buffer
		switch i % 3 {
		case 0:
			z := gzip.NewWriter(&buf)
			if _, err := z.Write(plain); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			wire = buf.Bytes()
		case 1:
			z, err := zstd.NewWriter(&buf)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := z.Write(plain); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			wire = buf.Bytes()
		}
		descriptors = append(descriptors, m.put(wire))
	}
	cfg := mustJSON(t, map[string]any{
		"architecture": "amd64", "os": "linux", "config": config,
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	m.manifest = mustJSON(t, map[string]any{"schemaVersion": 2, "config": m.put(cfg), "layers": descriptors})
	return m
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func openTestStore(t testing.TB) *Store {
	t.Helper()
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// converted puts an image into a new store.
func converted(t testing.TB, src Source) (*Store, Manifest, string) {
	t.Helper()
	s := openTestStore(t)
	m, id, err := Convert(t.Context(), src, "linux/amd64", s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, m, id
}

// assemble puts the disk together from the store's chunks.
func assemble(t testing.TB, s *Store, m Manifest) []byte {
	t.Helper()
	var disk []byte
	for _, c := range m.Chunks {
		b, err := s.Chunk(c)
		if err != nil {
			t.Fatal(err)
		}
		disk = append(disk, b...)
	}
	return disk
}

// sample is an image with all kinds of chunks.
func sample(t testing.TB) *memory {
	t.Helper()
	items := []item{folder("bin"), file("bin/app", noise(1700<<10, 1)), symlink("sbin", "bin")}
	for i := range 60 {
		items = append(items, file(fmt.Sprintf("etc/%d", i), noise(9000, byte(i))))
	}
	return ociImage(t, items)
}
