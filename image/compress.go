// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// The kernel tells compressed archives by their first four bytes. Of what it
// knows (Documentation/admin-guide/initrd.rst), a board takes one of two: LZ4
// unpacks in half the time, zstd is a quarter smaller.
var packers = map[string]func([]byte) ([]byte, error){"lz4": LZ4, "zstd": zstdBest}

// Pack compresses an archive for the kernel, as a board's field initramfs says.
func Pack(how string, archive []byte) ([]byte, error) {
	pack, ok := packers[how]
	if !ok {
		return nil, fmt.Errorf("initramfs: %q, want one of %s", how, strings.Join(slices.Sorted(maps.Keys(packers)), ", "))
	}
	return pack(archive)
}

const (
	lz4Magic = 0x184c2102 // of the legacy frame, the only one that the kernel reads
	lz4Block = 8 << 20    // of each but the last block, unpacked: fixed by the format
	wordLen  = 4
)

// LZ4 compresses an archive into LZ4's legacy frame: magic, then blocks, each
// behind its length. The frame has no end, so that a word of zeros is added:
// the kernel's unpacker (lib/decompress_unlz4.c) goes back there to who called
// it, who passes over zeros and finds the next archive.
func LZ4(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w := lz4.NewWriter(&out)
	// Level 3: higher ones find nothing more in programs. One thread: the bytes
	// must not depend on the machine.
	if err := w.Apply(lz4.LegacyOption(true), lz4.CompressionLevelOption(lz4.Level3), lz4.ConcurrencyOption(1)); err != nil {
		return nil, fmt.Errorf("lz4: %w", err)
	}
	if _, err := w.Write(b); err != nil {
		return nil, fmt.Errorf("lz4: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("lz4: %w", err)
	}
	return append(out.Bytes(), make([]byte, wordLen)...), nil
}

var errLZ4 = errors.New("lz4: not a legacy frame")

// unpackLZ4 reads one frame, at most limit bytes of content.
func unpackLZ4(frame []byte, limit int) ([]byte, error) {
	if len(frame) < wordLen || binary.LittleEndian.Uint32(frame) != lz4Magic {
		return nil, errLZ4
	}
	var out []byte
	block := make([]byte, lz4Block)
	for rest := frame[wordLen:]; len(rest) >= wordLen; {
		n := int(binary.LittleEndian.Uint32(rest))
		if rest = rest[wordLen:]; n == 0 {
			break
		}
		if n > len(rest) {
			return nil, fmt.Errorf("%w: a block of %d bytes, %d are left", errLZ4, n, len(rest))
		}
		m, err := lz4.UncompressBlock(rest[:n], block)
		if err != nil {
			return nil, fmt.Errorf("lz4: %w", err)
		}
		if rest = rest[n:]; len(out)+m > limit {
			return nil, fmt.Errorf("%w: more than %d bytes", errLZ4, limit)
		}
		out = append(out, block[:m]...)
	}
	return out, nil
}

// Zstd compresses quickly: the best level takes ten times as long for a tenth
// less.
func Zstd(b []byte) ([]byte, error) { return zstdAt(zstd.SpeedDefault, b) }

func zstdBest(b []byte) ([]byte, error) { return zstdAt(zstd.SpeedBestCompression, b) }

func zstdAt(level zstd.EncoderLevel, b []byte) ([]byte, error) {
	// One thread: the encoder's block borders must not depend on the machine.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	out := enc.EncodeAll(b, make([]byte, 0, len(b)/2))
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return out, nil
}

// packing is what compressed an archive.
func packing(archive []byte) string {
	if len(archive) >= wordLen && binary.LittleEndian.Uint32(archive) == lz4Magic {
		return "lz4"
	}
	return "zstd"
}

// unpacked reads an archive that one of packers made, at most limit bytes.
func unpacked(archive []byte, limit int) ([]byte, error) {
	if packing(archive) == "lz4" {
		return unpackLZ4(archive, limit)
	}
	dec, err := zstd.NewReader(bytes.NewReader(archive), zstd.WithDecoderMaxMemory(uint64(limit)))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return io.ReadAll(io.LimitReader(dec, int64(limit)))
}
