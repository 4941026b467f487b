// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"fmt"
	"os"
	"runtime"
)

// Export writes the disk of an image in the store to a file, for tools that are
// not ours: DataSize bytes of EROFS, and the hash tree behind them, without a
// superblock. The file was then read again and held against the verity root.
func (s *Store) Export(ctx context.Context, id string, to *os.File, progress func(done, total int64)) (Manifest, error) {
	m, err := s.Manifest(id)
	if err != nil {
		return Manifest{}, err
	}
	return m, export(ctx, m, to, func(_ context.Context, c Chunk) ([]byte, error) { return s.Chunk(c) }, progress)
}

// Export is Store's, of an image on the mirrors.
func (f *Fetcher) Export(ctx context.Context, id string, to *os.File, progress func(done, total int64)) (Manifest, error) {
	m, err := f.Manifest(ctx, id)
	if err != nil {
		return Manifest{}, err
	}
	s, err := f.session()
	if err != nil {
		return Manifest{}, err
	}
	return m, export(ctx, m, to, s.chunk, progress)
}

// export writes all chunks, in parallel. read must hand out only bytes that hash
// to the chunk's id.
func export(ctx context.Context, m Manifest, to *os.File, read func(context.Context, Chunk) ([]byte, error), progress func(done, total int64)) error {
	if err := to.Truncate(m.DiskSize); err != nil {
		return fmt.Errorf("export image: %w", err)
	}
	err := eachChunk(ctx, m, read, progress, func(c Chunk, b []byte) error {
		if _, err := to.WriteAt(b, c.Off); err != nil {
			return fmt.Errorf("export image: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return VerifyFile(to, m, runtime.GOMAXPROCS(0), nil)
}
