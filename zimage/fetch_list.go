// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
)

// BlobByChunks is BlobWithin for a blob of size bytes whose ChunkList, by its
// digest, somebody signed. A chunk is checked before it is kept; a wrong one is
// reported and asked of the next mirror. What an earlier attempt left, also one
// that was killed, is hashed chunk by chunk, and only what is missing is asked
// for, of mirrors and of room. Where no mirror has the list, or serves ranges,
// it is BlobWithin. An error of a list that is not of this blob is an ErrList.
func (f *Fetcher) BlobByChunks(ctx context.Context, digest, list string, size int64, path string, room func(bytes int64) error) (int64, error) {
	s, err := f.session()
	if err != nil {
		return 0, err
	}
	granted := int64(0)
	within := func(n int64) error {
		if n <= granted { // before it came to nothing
			granted -= n
			return nil
		}
		return room(n)
	}
	l, err := s.list(ctx, list)
	switch {
	case err == nil && (l.Blob != digest || l.Size != size):
		return s.received(), fmt.Errorf("%w: it is of blob %s of %d bytes, signed were %s of %d bytes", ErrList, l.Blob, l.Size, digest, size)
	case err == nil:
		err = s.byList(ctx, l, path, func(n int64) error {
			granted = n
			return room(n)
		})
	}
	if !errors.Is(err, ErrMissing) {
		return s.received(), err
	}
	s.log.Warn("no mirror serves chunks of it: it is checked as a whole only", "part", "zimage", "what", digest, "err", err)
	name, _ := PartNames(path)
	if err := os.Remove(name); err != nil && !isMissing(err) { // it may have holes
		return s.received(), fmt.Errorf("blob file: %w", err)
	}
	n, err := f.BlobWithin(ctx, digest, path, within)
	return n + s.received(), err
}

// list gets a list of chunks.
func (s *session) list(ctx context.Context, digest string) (l ChunkList, err error) {
	h, err := hexOf(digest)
	if err != nil {
		return ChunkList{}, err
	}
	b, err := s.race(ctx, "chunk list "+digest, 0, func(ctx context.Context, mirror string) ([]byte, error) {
		b, err := s.small(ctx, mirror, "blobs/"+h, MaxChunkList)
		if err != nil {
			return nil, err
		}
		if got := digestOf(b); got != digest {
			return nil, fmt.Errorf("%w: hashes to %s", ErrMismatch, got)
		}
		return b, nil
	})
	if err != nil {
		return ChunkList{}, err
	}
	return DecodeChunkList(b)
}

// byList brings a blob to its place.
func (s *session) byList(ctx context.Context, l ChunkList, path string, room func(int64) error) error {
	p, err := openBlobPart(path, l)
	if err != nil || p.whole {
		return err
	}
	chunks, missing := l.pieces(), int64(0)
	for i, c := range chunks {
		if !p.holds(i, c) {
			missing += c.Size
		}
	}
	if missing < l.Size {
		s.log.Info("going on with what is here", "part", "zimage", "what", l.Blob, "have", l.Size-missing, "of", l.Size)
	}
	if err = room(missing); err == nil {
		err = fill(ctx, chunks, p, func(ctx context.Context, c Chunk) ([]byte, error) { return s.piece(ctx, l.Blob, c) })
	}
	if err = errors.Join(err, p.close()); err != nil {
		return fmt.Errorf("blob %s: %w", l.Blob, err)
	}
	s.log.Info("all chunks are here", "part", "zimage", "what", l.Blob, "chunks", len(chunks), "fetched", missing, "of", l.Size)
	switch got, err := hashFile(p.name, io.Discard); {
	case err != nil:
		return err
	case got != l.Blob:
		return fmt.Errorf("%w: its chunks make %s, not %s", ErrList, got, l.Blob)
	}
	if err := errors.Join(os.Chmod(p.name, 0o444), os.Rename(p.name, path)); err != nil {
		return fmt.Errorf("finish blob: %w", err)
	}
	return nil
}

// openBlobPart opens what an earlier attempt left, or a new file. There is no
// note of which chunks are in it: a blob is soon hashed.
func openBlobPart(path string, l ChunkList) (*part, error) {
	p := &part{have: PackHave(make([]bool, len(l.Chunks)))}
	p.name, _ = PartNames(path)
	switch got, err := hashFile(path, io.Discard); {
	case err == nil && got == l.Blob:
		p.whole = true
		return p, nil
	case err == nil:
		if err := errors.Join(os.Chmod(path, 0o600), os.Rename(path, p.name)); err != nil {
			return nil, fmt.Errorf("set wrong blob aside: %w", err)
		}
	case !isMissing(err):
		return nil, err
	}
	if _, err := os.Lstat(p.name); err == nil {
		for i := range p.have {
			p.have[i] = 0xff
		}
	}
	f, err := os.OpenFile(p.name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("blob file: %w", err)
	}
	if err := f.Truncate(l.Size); err != nil {
		return nil, errors.Join(fmt.Errorf("blob file: %w", err), f.Close())
	}
	p.file = f
	return p, nil
}

// piece gets one chunk of a blob, as a range of it, and checks it.
func (s *session) piece(ctx context.Context, blob string, c Chunk) ([]byte, error) {
	h, err := hexOf(blob)
	if err != nil {
		return nil, err
	}
	return s.chunkFrom(ctx, fmt.Sprintf("chunk at byte %d of %s", c.Off, blob), func(ctx context.Context, mirror string) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		resp, err := s.ask(ctx, mirror, "blobs/"+h, fmt.Sprintf("bytes=%d-%d", c.Off, c.Off+c.Size-1), asItIs)
		if status := (*statusError)(nil); errors.As(err, &status) && status.code == http.StatusRequestedRangeNotSatisfiable {
			return nil, fmt.Errorf("%w: it has no bytes at %d", ErrMismatch, c.Off)
		}
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusPartialContent { // the whole for each chunk would be too much
			return nil, errors.Join(fmt.Errorf("%w: it serves no ranges of it", ErrMissing), resp.Body.Close())
		}
		b, err := s.body(resp, c.Size)
		if err != nil {
			return nil, err
		}
		return b, checkChunk(b, c)
	})
}
