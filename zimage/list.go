// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/zos-node/zos/spec/strict"
)

// ListFormat is the number of the form of a ChunkList: chunks of 256 KiB.
const ListFormat = 1

// MaxChunkList is the largest encoded ChunkList.
const MaxChunkList = 512 << 10

// ErrList means a list of chunks that nobody's tool makes, or that is not of
// the blob that it was named with. It is the fault of whoever signed it: a
// mirror's would have another digest.
var ErrList = errors.New("list of chunks refused")

// ChunkList is how a blob is cut into chunks, so that each can be checked as
// soon as it is there: whoever names the digest of the list beside that of the
// blob binds every chunk. All but the last have MaxChunk bytes. Mirrors have it
// as a blob of its own; a chunk is a range of the blob, which they need not
// know of. Its canonical JSON (fields in this order, no spaces, no trailing
// newline) is what is hashed.
type ChunkList struct {
	Format int64    `json:"format"`
	Blob   string   `json:"blob"` // digest of the whole
	Size   int64    `json:"size"` // bytes of the whole
	Chunks []string `json:"chunks"`
}

// ListChunks reads a blob to its end and makes its list.
func ListChunks(r io.Reader) (ChunkList, error) {
	l := ChunkList{Format: ListFormat, Chunks: []string{}}
	whole, buf := sha256.New(), make([]byte, MaxChunk)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			sum := sha256.Sum256(buf[:n])
			whole.Write(buf[:n])
			l.Chunks = append(l.Chunks, hex.EncodeToString(sum[:]))
			l.Size += int64(n)
		}
		if l.Size > MaxBlob {
			return ChunkList{}, fmt.Errorf("list chunks: more than %d bytes", MaxBlob)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			l.Blob = "sha256:" + hex.EncodeToString(whole.Sum(nil))
			return l, l.validate()
		case err != nil:
			return ChunkList{}, fmt.Errorf("list chunks: %w", err)
		}
	}
}

// Encode writes the list in its one form.
func (l ChunkList) Encode() ([]byte, error) {
	if err := l.validate(); err != nil {
		return nil, err
	}
	b, err := strict.Encode(l)
	if err != nil {
		return nil, fmt.Errorf("encode list of chunks: %w", err)
	}
	return b, nil
}

// DecodeChunkList reads a list. Another way to write the same one is refused.
func DecodeChunkList(b []byte) (ChunkList, error) {
	var l ChunkList
	if err := strict.Decode(b, &l, MaxChunkList); err != nil {
		return ChunkList{}, fmt.Errorf("%w: %w", ErrList, err)
	}
	again, err := l.Encode()
	if err != nil {
		return ChunkList{}, err
	}
	if !bytes.Equal(again, b) {
		return ChunkList{}, fmt.Errorf("%w: it is not in its one form", ErrList)
	}
	return l, nil
}

func (l ChunkList) validate() error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrList, fmt.Sprintf(format, args...))
	}
	switch {
	case l.Format != ListFormat:
		return wrong("format is %d, want %d", l.Format, ListFormat)
	case !isDigest(l.Blob):
		return wrong("blob is %q, want sha256:<64 hex digits>", l.Blob)
	case l.Size < 1 || l.Size > MaxBlob:
		return wrong("size is %d, want 1 to %d bytes", l.Size, MaxBlob)
	case int64(len(l.Chunks)) != (l.Size+MaxChunk-1)/MaxChunk:
		return wrong("it has %d chunks of %d bytes for %d bytes", len(l.Chunks), MaxChunk, l.Size)
	}
	for i, c := range l.Chunks {
		if !isHex(c) {
			return wrong("chunks[%d] is %q, want 64 hex digits", i, c)
		}
	}
	return nil
}

// pieces are the chunks with their places.
func (l ChunkList) pieces() []Chunk {
	out := make([]Chunk, len(l.Chunks))
	for i, id := range l.Chunks {
		off := int64(i) * MaxChunk
		out[i] = Chunk{ID: id, Off: off, Size: min(MaxChunk, l.Size-off)}
	}
	return out
}

// AddBlobInChunks is AddBlob for a blob that is to be fetched by chunks: the
// list is added too. It gives the digests of both.
func (s *Store) AddBlobInChunks(path string) (digest, list string, err error) {
	if digest, err = s.AddBlob(path); err != nil {
		return "", "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", "", fmt.Errorf("add blob: %w", err)
	}
	l, err := ListChunks(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", "", err
	}
	if l.Blob != digest {
		return "", "", fmt.Errorf("add blob %s: the file changed while it was read", path)
	}
	b, err := l.Encode()
	if err != nil {
		return "", "", err
	}
	list = digestOf(b)
	return digest, list, s.write("blobs/"+strings.TrimPrefix(list, "sha256:"), b)
}
