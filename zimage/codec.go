// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// ErrMismatch means bytes that do not hash to the name they were asked for
// under. They are never written anywhere.
var ErrMismatch = errors.New("content does not match its hash")

// maxWire bounds a chunk in transit: what zstd makes of bytes that it cannot
// compress is a few bytes longer than they are.
const maxWire = MaxChunk + 4096

// codec turns chunks into their wire form and back.
type codec struct {
	enc  *zstd.Encoder
	dec  *zstd.Decoder
	wire sync.Pool // of *[]byte, with room for a chunk in transit
}

// newCodec compresses at the fastest level: at the next one half of a
// conversion's time on a processor went into it, for 4 % fewer bytes.
func newCodec() (*codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithAllLitEntropyCompression(true), zstd.WithWindowSize(MaxChunk))
	if err != nil {
		return nil, fmt.Errorf("zstd encoder: %w", err)
	}
	// A bomb cannot unpack to more than the chunk has bytes: the decoder
	// stops at the capacity it is given.
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(MaxChunk), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderConcurrency(0))
	if err != nil {
		return nil, fmt.Errorf("zstd decoder: %w", err)
	}
	return &codec{enc: enc, dec: dec, wire: sync.Pool{New: func() any { b := make([]byte, 0, maxWire); return &b }}}, nil
}

func (c *codec) pack(plain []byte) []byte { return c.enc.EncodeAll(plain, nil) }

// packed passes the wire form to use, which must not keep it: memory that is
// new for each chunk would have to be cleared by the kernel for each.
func (c *codec) packed(plain []byte, use func(wire []byte) error) error {
	b := c.wire.Get().(*[]byte)
	*b = c.enc.EncodeAll(plain, (*b)[:0])
	err := use(*b)
	c.wire.Put(b)
	return err
}

// unpack gives the plain bytes of a chunk, or ErrMismatch.
func (c *codec) unpack(wire []byte, want Chunk) ([]byte, error) {
	plain, err := c.dec.DecodeAll(wire, make([]byte, 0, want.Size))
	if err != nil {
		return nil, fmt.Errorf("chunk %s: %w: zstd: %w", want.ID, ErrMismatch, err)
	}
	if err := checkChunk(plain, want); err != nil {
		return nil, err
	}
	return plain, nil
}

func checkChunk(plain []byte, want Chunk) error {
	if int64(len(plain)) != want.Size {
		return fmt.Errorf("chunk %s: %w: has %d bytes, want %d", want.ID, ErrMismatch, len(plain), want.Size)
	}
	if sum := sha256.Sum256(plain); hex.EncodeToString(sum[:]) != want.ID {
		return fmt.Errorf("chunk %s: %w: hashes to %x", want.ID, ErrMismatch, sum)
	}
	return nil
}
