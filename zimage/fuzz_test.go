// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/flat"
)

// FuzzConvert: whatever bytes a layer is made of, compressed or not, the
// image is refused with one of the errors that say so, or it has a manifest
// that nodes accept, and the same one twice.
func FuzzConvert(f *testing.F) {
	for _, c := range rawCorners() {
		f.Add(c.tar)
	}
	for _, c := range corners() {
		if all := c.tars(f); len(all) == 1 && len(all[0]) < 1<<16 {
			f.Add(all[0])
		}
	}
	for _, wire := range ociImage(f, []item{file("a", noise(3000, 1))}, []item{file("b", nil)}, []item{folder("c")}).blobs {
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, layer []byte) {
		dir := t.TempDir()
		convert := func() (Result, error) {
			m := &memory{blobs: map[string][]byte{}}
			cfg := mustJSON(t, map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"diff_ids": []string{diffOf(layer)}}})
			m.manifest = mustJSON(t, map[string]any{"config": m.put(cfg), "layers": []any{m.put(layer)}})
			return Converter{Temp: dir}.Convert(t.Context(), m, "linux/amd64")
		}
		r, err := convert()
		if err != nil {
			for _, known := range []error{ErrSource, ErrMismatch, flat.ErrLayer, flat.ErrLimit, erofs.ErrTree} {
				if errors.Is(err, known) {
					return
				}
			}
			t.Fatalf("error of another kind: %v", err)
		}
		if again, err := convert(); err != nil || again.ID != r.ID {
			t.Errorf("converted again: %s %v, want %s", again.ID, err, r.ID)
		}
	})
}

// diffOf gives the diff id of a layer, if it can be unpacked.
func diffOf(layer []byte) string {
	r, done, err := unpack(bytes.NewReader(layer))
	if err != nil {
		return digestOf(layer)
	}
	defer done()
	var b bytes.Buffer
	if _, err := b.ReadFrom(&limited{r, 1 << 22}); err != nil {
		return digestOf(layer)
	}
	return digestOf(b.Bytes())
}

var errTooLong = errors.New("too long")

// limited fails behind so many bytes.
type limited struct {
	r    interface{ Read([]byte) (int, error) }
	left int
}

func (l *limited) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	if l.left -= n; l.left < 0 {
		return 0, errTooLong
	}
	return n, err
}

// FuzzChunkIndex: a list of chunks that a manifest's reader accepts covers
// the disk, piece by piece, and data and tree each with pieces of their own.
func FuzzChunkIndex(f *testing.F) {
	_, m, _ := converted(f, ociImage(f, []item{file("a", noise(400<<10, 1)), file("b", noise(70000, 2))}))
	good := mustJSON(f, m.Chunks)
	f.Add(good, m.DataSize)
	f.Add(bytes.Replace(good, []byte("65536"), []byte("131072"), 1), m.DataSize)
	f.Add(bytes.Replace(good, []byte("4096"), []byte("-4096"), 1), m.DataSize)
	f.Add([]byte(`[]`), int64(4096))
	f.Add([]byte(`[{"id":"`+m.Chunks[0].ID+`","off":0,"size":4096}]`), int64(4096))
	f.Add([]byte(`[{"id":"../../../../etc/passwd","off":0,"size":9223372036854775807}]`), int64(1<<62))
	f.Fuzz(func(t *testing.T, list []byte, dataSize int64) {
		other := m
		other.Chunks = nil
		if json.Unmarshal(list, &other.Chunks) != nil {
			return
		}
		other.DataSize, other.DiskSize = dataSize, m.DiskSize-m.DataSize+dataSize
		other.Verity.HashStart = dataSize / 4096
		if other.validate() != nil {
			return
		}
		at := int64(0)
		for i, c := range other.Chunks {
			if c.Off != at || c.Size <= 0 || c.Size > MaxChunk || !isHex(c.ID) || c.Off < dataSize && c.Off+c.Size > dataSize {
				t.Fatalf("chunk %d of %d bytes at %d, data ends at %d", i, c.Size, c.Off, dataSize)
			}
			at += c.Size
		}
		if at != other.DiskSize {
			t.Errorf("chunks end at %d of %d", at, other.DiskSize)
		}
	})
}

// FuzzWire: whatever a mirror sends for a chunk, only the chunk's own bytes
// come out.
func FuzzWire(f *testing.F) {
	c, err := newCodec()
	if err != nil {
		f.Fatal(err)
	}
	plain := append(noise(5000, 1), make([]byte, 3192)...)
	want := Chunk{ID: digestOf(plain)[len("sha256:"):], Size: int64(len(plain))}
	wire := c.pack(plain)
	f.Add(wire)
	f.Add(append(bytes.Clone(wire), 0))
	f.Add(append(bytes.Clone(wire), wire...))
	f.Add(wire[:len(wire)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := c.unpack(b, want)
		switch {
		case err == nil && !bytes.Equal(got, plain):
			t.Error("accepted other bytes")
		case err != nil && !errors.Is(err, ErrMismatch):
			t.Errorf("error of another kind: %v", err)
		}
	})
}
