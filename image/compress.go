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

// The kernel tells compressed archives by how they begin. Of what it knows
// (Documentation/admin-guide/initrd.rst), a board takes one of two: LZ4 unpacks
// in half the time, zstd is a quarter smaller.
var packers = map[string]func([]byte) ([]byte, error){"lz4": LZ4, "zstd": zstdBest}

// Pack compresses an archive for the kernel, as a board's field initramfs says,
// and reads it back: what does not come back would be a node that does not boot.
func Pack(how string, archive []byte) ([]byte, error) {
	pack, ok := packers[how]
	if !ok {
		return nil, fmt.Errorf("initramfs: %q, want one of %s", how, strings.Join(slices.Sorted(maps.Keys(packers)), ", "))
	}
	out, err := pack(archive)
	if err != nil {
		return nil, err
	}
	back, err := unpacked(out, maxInitramfs)
	if err == nil && !bytes.Equal(back, archive) {
		err = errors.New("it comes back as something else")
	}
	if err != nil {
		return nil, fmt.Errorf("read what %s has made: %w", how, err)
	}
	return out, nil
}

// packed is what an image with that hypervisor has as its initramfs. The second
// driver is five times as large as the first: what LZ4 takes more would be
// beyond what a board's image may have, and zstd's best level takes a minute.
func packed(hypervisor, how string, archive []byte) ([]byte, error) {
	if hypervisor == "qemu" {
		return Zstd(archive)
	}
	return Pack(how, archive)
}

const (
	lz4Magic = 0x184c2102 // of the legacy frame, the only one that the kernel reads
	lz4Block = 8 << 20    // of each but the last block, unpacked: fixed by the format
	wordLen  = 4
)

// LZ4 compresses an archive into LZ4's legacy frame: magic, then blocks, each
// behind its length. A block that does not become smaller is compressed all the
// same: the library's own writer marks such a block as one that is not, which
// this format, and the kernel, do not know. The frame has no end, so that a word
// of zeros is added: the kernel's unpacker (lib/decompress_unlz4.c) goes back
// there to who called it, who passes over zeros and finds the next archive.
func LZ4(b []byte) ([]byte, error) {
	out := binary.LittleEndian.AppendUint32(nil, lz4Magic)
	// Level 3: higher ones find nothing more in programs.
	c := lz4.CompressorHC{Level: lz4.Level3}
	block := make([]byte, lz4.CompressBlockBound(lz4Block))
	for part := range slices.Chunk(b, lz4Block) {
		n, err := c.CompressBlock(part, block)
		if err != nil {
			return nil, fmt.Errorf("lz4: %w", err)
		}
		out = append(binary.LittleEndian.AppendUint32(out, uint32(n)), block[:n]...)
	}
	return append(out, make([]byte, wordLen)...), nil
}

var errLZ4 = errors.New("lz4: not a legacy frame with its end")

// unpackLZ4 reads one frame, at most limit bytes of content. Behind its end may
// stand zeros only: the kernel would unpack whatever else is there.
func unpackLZ4(frame []byte, limit int) ([]byte, error) {
	if len(frame) < wordLen || binary.LittleEndian.Uint32(frame) != lz4Magic {
		return nil, errLZ4
	}
	var out []byte
	block := make([]byte, lz4Block)
	for rest := frame[wordLen:]; len(rest) >= wordLen; {
		n := int(binary.LittleEndian.Uint32(rest))
		if rest = rest[wordLen:]; n == 0 {
			if !zeros(rest) {
				return nil, fmt.Errorf("%w: something stands behind it", errLZ4)
			}
			return out, nil
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
	return nil, errLZ4
}

func zeros(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// Zstd compresses quickly: the best level takes ten times as long for a tenth
// less.
func Zstd(b []byte) ([]byte, error) {
	return zstdWith(b, zstd.WithEncoderLevel(zstd.SpeedDefault))
}

// zstdBest takes its time, and looks for what it has seen before in all of an
// initramfs: init and agent share much of Go's runtime, and stand far apart. The
// kernel takes windows of up to 128 MiB (lib/decompress_unzstd.c).
func zstdBest(b []byte) ([]byte, error) {
	return zstdWith(b, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(zstdWindow))
}

const zstdWindow = 32 << 20

func zstdWith(b []byte, how ...zstd.EOption) ([]byte, error) {
	// One thread: the encoder's block borders must not depend on the machine.
	enc, err := zstd.NewWriter(nil, append(how, zstd.WithEncoderConcurrency(1))...)
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
