// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/zos-node/zos/zimage/verity"
)

// VerifyImage checks a disk file against its manifest: its length, the verity
// root made anew from the data blocks, and that the tree behind them is the
// one that was made. That is every byte of the file, each hashed once; the
// chunks' own hashes would say nothing more.
func VerifyImage(path string, m Manifest) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("verify image: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("verify image: %w", err)
	}
	if info.Size() != m.DiskSize {
		return fmt.Errorf("%s: %w: has %d bytes, want %d", path, ErrMismatch, info.Size(), m.DiskSize)
	}
	if err := m.validate(); err != nil {
		return err
	}
	leaves := make([]byte, m.DataSize/verity.BlockSize*verity.HashSize)
	var next atomic.Int64 // the piece that nobody has taken yet
	var g errgroup.Group
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			// One buffer each: fresh memory costs more than hashing it.
			buf := make([]byte, verifyPiece)
			for {
				off := next.Add(verifyPiece) - verifyPiece
				if off >= m.DataSize {
					return nil
				}
				b := buf[:min(verifyPiece, m.DataSize-off)]
				if _, err := f.ReadAt(b, off); err != nil {
					return fmt.Errorf("read %s: %w", path, err)
				}
				if err := verity.Leaves(leaves[off/verity.BlockSize*verity.HashSize:][:len(b)/verity.BlockSize*verity.HashSize], b); err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	tree, err := rootedTree(leaves, m)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	have := make([]byte, m.DiskSize-m.DataSize)
	if _, err := f.ReadAt(have, m.DataSize); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if !bytes.Equal(have, tree) {
		return fmt.Errorf("%s: %w: the hash tree is not the data's", path, ErrMismatch)
	}
	return nil
}

// verifyPiece is how much of a file is read at a time.
const verifyPiece = 256 << 10

// rootedTree makes the hash tree over the leaves, which must have the root
// that the manifest names.
func rootedTree(leaves []byte, m Manifest) ([]byte, error) {
	tree, root, err := verity.Tree(leaves)
	if err != nil {
		return nil, fmt.Errorf("hash tree: %w", err)
	}
	if got := hex.EncodeToString(root[:]); got != m.Verity.Root {
		return nil, fmt.Errorf("verity root: %w: the data's is %s, the manifest's %s", ErrMismatch, got, m.Verity.Root)
	}
	return tree, nil
}

// Verify checks an image in the store: manifest, SPDX document, every chunk,
// verity root.
func (s *Store) Verify(ctx context.Context, id string, progress func(done, total int64)) (Manifest, error) {
	m, err := s.Manifest(id)
	if err != nil {
		return Manifest{}, err
	}
	if _, err := s.SBOM(m); err != nil {
		return Manifest{}, err
	}
	return m, verifyChunks(ctx, m, func(_ context.Context, c Chunk) ([]byte, error) { return s.Chunk(c) }, progress)
}

// Verify checks an image on the mirrors: manifest, SPDX document, every chunk,
// verity root. Nothing is kept.
func (f *Fetcher) Verify(ctx context.Context, id string, progress func(done, total int64)) (Manifest, error) {
	m, err := f.Manifest(ctx, id)
	if err != nil {
		return Manifest{}, err
	}
	if _, err := f.SBOM(ctx, m); err != nil {
		return Manifest{}, err
	}
	s, err := f.session()
	if err != nil {
		return Manifest{}, err
	}
	return m, verifyChunks(ctx, m, s.chunk, progress)
}

// verifyChunks reads all chunks, in parallel. read must hand out only bytes
// that hash to the chunk's id. What then remains is the tree: it is made
// anew from the data, and must be what the manifest's tree chunks hold.
func verifyChunks(ctx context.Context, m Manifest, read func(context.Context, Chunk) ([]byte, error), progress func(done, total int64)) error {
	if err := m.validate(); err != nil {
		return err
	}
	p := &reporter{report: progress, total: m.DiskSize}
	leaves := make([]byte, m.DataSize/verity.BlockSize*verity.HashSize)
	g, work := errgroup.WithContext(ctx)
	g.SetLimit(max(runtime.GOMAXPROCS(0), parallel))
	for _, c := range m.Chunks {
		if work.Err() != nil {
			break
		}
		g.Go(func() error {
			b, err := read(work, c)
			if err != nil {
				return err
			}
			defer p.add(c.Size)
			if c.Off >= m.DataSize {
				return nil
			}
			return verity.Leaves(leaves[c.Off/verity.BlockSize*verity.HashSize:][:c.Size/verity.BlockSize*verity.HashSize], b)
		})
	}
	if err := errors.Join(g.Wait(), ctx.Err()); err != nil {
		return err
	}
	tree, err := rootedTree(leaves, m)
	if err != nil {
		return err
	}
	for _, c := range m.Chunks {
		if c.Off < m.DataSize {
			continue
		}
		if err := checkChunk(tree[c.Off-m.DataSize:][:c.Size], c); err != nil {
			return fmt.Errorf("hash tree at %d is not the data's: %w", c.Off, err)
		}
	}
	return nil
}

// isMissing tells "not there" from other errors of reading.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
