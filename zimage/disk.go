// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/verity"
)

// chunkText is what a chunk takes of a manifest, at least.
const chunkText = len(`{"id":"","off":0,"size":4096},`) + 64

// keep takes the bytes of a chunk, which are the caller's again afterwards,
// and gives the chunk's id.
type keep func(plain []byte) (id string, err error)

// makeDisk makes EROFS and hash tree and hands over their chunks, in one
// pass: the disk as a whole exists nowhere. It fills in what the manifest
// says of them. hashes is the empty file in which the tree grows.
func (c Converter) makeDisk(ctx context.Context, plan *erofs.Image, hashes *os.File, m *Manifest, p *reporter) error {
	layout := plan.Layout()
	tree, err := verity.NewBuilder(hashes, layout.Size)
	if err != nil {
		return fmt.Errorf("hash tree: %w", err)
	}
	m.DataSize, m.DiskSize = layout.Size, layout.Size+tree.Size()
	m.Chunks = cut(layout, m.DiskSize)
	if len(m.Chunks) > MaxManifest/chunkText {
		return fmt.Errorf("%w: %d chunks, and a manifest has room for %d", ErrSource, len(m.Chunks), MaxManifest/chunkText)
	}
	p.remaining(m.DiskSize)
	put := func(b []byte) (string, error) { return digestOf(b)[len("sha256:"):], nil }
	if c.Store != nil {
		put = c.Store.putChunk
	}
	out := newCutter(ctx, m.Chunks, func(chunk *Chunk, b []byte) (err error) {
		if chunk.Off < m.DataSize {
			if err := tree.Add(chunk.Off, b); err != nil {
				return err
			}
		}
		chunk.ID, err = put(b)
		p.add(chunk.Size)
		return err
	})
	err = plan.Write(out)
	// A chunk that could not be kept is the reason why writing ended.
	if kept := out.wait(); kept != nil {
		return kept
	}
	if err != nil {
		return err
	}
	root, err := tree.Root()
	if err != nil {
		return fmt.Errorf("hash tree: %w", err)
	}
	m.Verity = Verity{Root: hex.EncodeToString(root[:]), HashStart: layout.Size / verity.BlockSize}
	return storeTree(ctx, hashes, m, put, p)
}

// storeTree hands over the chunks of the finished tree.
func storeTree(ctx context.Context, hashes *os.File, m *Manifest, put keep, p *reporter) error {
	for i := range m.Chunks {
		c := &m.Chunks[i]
		if c.Off < m.DataSize {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		b := make([]byte, c.Size)
		if _, err := hashes.ReadAt(b, c.Off-m.DataSize); err != nil {
			return fmt.Errorf("read back hash tree: %w", err)
		}
		var err error
		if c.ID, err = put(b); err != nil {
			return err
		}
		p.add(c.Size)
	}
	return nil
}

// cutter is a writer that cuts what is written into chunks and has several
// goroutines work on them. It holds as many chunks as there are goroutines,
// and one.
type cutter struct {
	chunks []Chunk // those still to come
	work   func(c *Chunk, b []byte) error
	g      *errgroup.Group
	ctx    context.Context // ends when a goroutine has failed
	outer  context.Context
	buf    []byte
	free   chan []byte
}

func newCutter(ctx context.Context, chunks []Chunk, work func(c *Chunk, b []byte) error) *cutter {
	n := runtime.GOMAXPROCS(0)
	k := &cutter{chunks: chunks, work: work, outer: ctx, free: make(chan []byte, n+1)}
	k.g, k.ctx = errgroup.WithContext(ctx)
	k.g.SetLimit(n)
	for range n + 1 {
		k.free <- make([]byte, 0, MaxChunk)
	}
	k.buf = <-k.free
	return k
}

func (k *cutter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		if err := k.ctx.Err(); err != nil {
			return n - len(b), err
		}
		if len(k.chunks) == 0 {
			return n - len(b), fmt.Errorf("%d bytes behind the last chunk", len(b))
		}
		c := &k.chunks[0]
		take := min(int(c.Size)-len(k.buf), len(b))
		k.buf = append(k.buf, b[:take]...)
		b = b[take:]
		if len(k.buf) < int(c.Size) {
			continue
		}
		full := k.buf
		k.chunks = k.chunks[1:]
		k.g.Go(func() error {
			defer func() { k.free <- full[:0] }()
			return k.work(c, full)
		})
		k.buf = <-k.free
	}
	return n, nil
}

// wait ends the work and gives its first error.
func (k *cutter) wait() error {
	if err := k.g.Wait(); err != nil {
		return err
	}
	return k.outer.Err()
}
