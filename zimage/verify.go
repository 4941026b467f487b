// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/zos-node/zos/zimage/verity"
)

// VerifyImage checks a disk file against its manifest: its length, and every
// byte of data and hash tree up to the verity root, each hashed once; the
// chunks' own hashes would say nothing more. Its memory is the same for every
// image. An error of a wrong file is an ErrMismatch.
func VerifyImage(path string, m Manifest) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("verify image: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return VerifyFile(f, m, runtime.GOMAXPROCS(0), nil)
}

// VerifyFile is VerifyImage for a file that is open, with so many goroutines.
// before, which may be nil, is called ahead of each read: it may wait, which
// bounds the rate, and its error ends the check.
func VerifyFile(f *os.File, m Manifest, goroutines int, before func(bytes int) error) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("verify image: %w", err)
	}
	if info.Size() != m.DiskSize {
		return fmt.Errorf("%s: %w: has %d bytes, want %d", f.Name(), ErrMismatch, info.Size(), m.DiskSize)
	}
	root, err := m.root()
	if err != nil {
		return err
	}
	err = verity.Check(f, m.DataSize, root, goroutines, before)
	if errors.Is(err, verity.ErrCorrupt) {
		err = fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}

// root is the verity root of a manifest that is in order.
func (m Manifest) root() (root [verity.HashSize]byte, err error) {
	if err := m.validate(); err != nil {
		return root, err
	}
	if _, err := hex.Decode(root[:], []byte(m.Verity.Root)); err != nil {
		return root, fmt.Errorf("verity root: %w", err)
	}
	return root, nil
}

// Verify checks an image in the store: manifest, SPDX document, every chunk,
// verity root. It writes nothing into the store; the hash tree is made in a file without
// a name, in the system's folder for temporary files.
func (s *Store) Verify(ctx context.Context, id string, progress func(done, total int64)) (Manifest, error) {
	m, err := s.Manifest(id)
	if err != nil {
		return Manifest{}, err
	}
	if _, err := s.SBOM(m); err != nil {
		return Manifest{}, err
	}
	return m, verifyChunks(ctx, m, os.TempDir(), func(_ context.Context, c Chunk) ([]byte, error) { return s.Chunk(c) }, progress)
}

// Verify checks an image on the mirrors: manifest, SPDX document, every chunk,
// verity root. Nothing is kept; the hash tree is made in a file without a name,
// in the system's folder for temporary files.
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
	return m, verifyChunks(ctx, m, os.TempDir(), s.chunk, progress)
}

// verifyChunks reads all chunks, in parallel. read must hand out only bytes
// that hash to the chunk's id. What then remains is the tree: it is made
// anew from the data, in a file below temp, and must be what the manifest's
// tree chunks hold.
func verifyChunks(ctx context.Context, m Manifest, temp string, read func(context.Context, Chunk) ([]byte, error), progress func(done, total int64)) (err error) {
	want, err := m.root()
	if err != nil {
		return err
	}
	file, err := unnamed(temp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	tree, err := verity.NewBuilder(file, m.DataSize)
	if err != nil {
		return fmt.Errorf("hash tree: %w", err)
	}
	err = eachChunk(ctx, m, read, progress, func(c Chunk, b []byte) error {
		if c.Off >= m.DataSize {
			return nil
		}
		return tree.Add(c.Off, b)
	})
	if err != nil {
		return err
	}
	root, err := tree.Root()
	if err != nil {
		return fmt.Errorf("hash tree: %w", err)
	}
	if root != want {
		return fmt.Errorf("verity root: %w: the data's is %s, the manifest's %s", ErrMismatch, hex.EncodeToString(root[:]), m.Verity.Root)
	}
	return treeChunks(file, m)
}

// eachChunk reads all chunks, several at once, and has do called with each, in no
// order. What is done with a chunk counts as its progress.
func eachChunk(ctx context.Context, m Manifest, read func(context.Context, Chunk) ([]byte, error), progress func(done, total int64), do func(Chunk, []byte) error) error {
	p := &reporter{report: progress, total: m.DiskSize}
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
			if err := do(c, b); err != nil {
				return err
			}
			p.add(c.Size)
			return nil
		})
	}
	return errors.Join(g.Wait(), ctx.Err())
}

// treeChunks holds the chunks behind the data against the tree in a file.
func treeChunks(file *os.File, m Manifest) error {
	b := make([]byte, MaxChunk)
	for _, c := range m.Chunks {
		if c.Off < m.DataSize {
			continue
		}
		part := b[:c.Size]
		if _, err := file.ReadAt(part, c.Off-m.DataSize); err != nil {
			return fmt.Errorf("read hash tree: %w", err)
		}
		if err := checkChunk(part, c); err != nil {
			return fmt.Errorf("hash tree at %d is not the data's: %w", c.Off, err)
		}
	}
	return nil
}

// isMissing tells "not there" from other errors of reading.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
