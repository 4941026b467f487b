// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/flat"
	"github.com/zos-node/zos/zimage/verity"
)

// tarOverhead is what layers may have besides file contents: headers and
// padding.
const tarOverhead = 4 << 30

// Convert makes the Zero-Image of an OCI image and puts it into the store.
// It gives the image's manifest and id; the same OCI manifest and platform
// give the same id on any machine. progress, which may be nil, hears bytes
// done of bytes in all; the total is an estimate until the layers are read.
//
// Memory grows with the number of files, not with their size: contents pass
// through two unnamed files in the store's folder.
func Convert(ctx context.Context, src Source, platform string, store *Store, progress func(done, total int64)) (m Manifest, id string, err error) {
	p := &reporter{report: progress}
	from, man, cfg, err := openImage(ctx, src, platform)
	if err != nil {
		return Manifest{}, "", err
	}
	spool, err := store.temp()
	if err != nil {
		return Manifest{}, "", err
	}
	defer func() { err = errors.Join(err, spool.Close()) }()
	tree, err := flatten(ctx, src, man, cfg, spool, p)
	if err != nil {
		return Manifest{}, "", err
	}
	m = Manifest{Format: Format, OCI: from}
	if m.Config, err = defaults(cfg, tree); err != nil {
		return Manifest{}, "", err
	}
	disk, err := store.temp()
	if err != nil {
		return Manifest{}, "", err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	layout, err := writeDisk(ctx, disk, tree.Root(), &m)
	if err != nil {
		return Manifest{}, "", err
	}
	p.remaining(m.DiskSize)
	m.Chunks = cut(layout, m.DiskSize)
	if err := storeChunks(ctx, disk, m.Chunks, store, p); err != nil {
		return Manifest{}, "", err
	}
	if id, err = store.putManifest(m); err != nil {
		return Manifest{}, "", err
	}
	return m, id, nil
}

// flatten reads all layers into one tree.
func flatten(ctx context.Context, src Source, man ociManifest, cfg ociConfig, spool flat.Spool, p *reporter) (*flat.Tree, error) {
	limits := flat.DefaultLimits()
	left := limits.Bytes + tarOverhead
	tree := flat.New(spool, limits)
	var wire int64
	for _, d := range man.Layers {
		wire += max(d.Size, 0)
	}
	p.remaining(wire * 3) // unpacked, layers are about twice as large
	for i, d := range man.Layers {
		err := readLayer(ctx, src, d, cfg.RootFS.DiffIDs[i], &left, func(n int) { p.add(int64(n)) }, tree.Layer)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return tree, nil
}

// writeDisk writes EROFS and hash tree, and fills in what the manifest says
// of them.
func writeDisk(ctx context.Context, disk *os.File, root *erofs.Node, m *Manifest) (erofs.Layout, error) {
	var leaves verity.Hasher
	layout, err := erofs.Write(io.MultiWriter(canceller{ctx}, disk, &leaves), root)
	if err != nil {
		return erofs.Layout{}, err
	}
	hashes, top, err := leaves.Tree()
	if err != nil {
		return erofs.Layout{}, fmt.Errorf("hash tree: %w", err)
	}
	if _, err := disk.Write(hashes); err != nil {
		return erofs.Layout{}, fmt.Errorf("write hash tree: %w", err)
	}
	m.DataSize, m.DiskSize = layout.Size, layout.Size+int64(len(hashes))
	m.Verity = Verity{Root: hex.EncodeToString(top[:]), HashStart: layout.Size / verity.BlockSize}
	return layout, nil
}

// storeChunks names the chunks and stores them.
func storeChunks(ctx context.Context, disk io.ReaderAt, chunks []Chunk, store *Store, p *reporter) error {
	g, work := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range chunks {
		if work.Err() != nil {
			break
		}
		g.Go(func() error {
			c := &chunks[i]
			b := make([]byte, c.Size)
			if _, err := disk.ReadAt(b, c.Off); err != nil {
				return fmt.Errorf("read back image: %w", err)
			}
			var err error
			c.ID, err = store.putChunk(b)
			p.add(c.Size)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// canceller is a writer that fails when its context has ended.
type canceller struct{ ctx context.Context }

func (c canceller) Write(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return len(b), nil
}
