// SPDX-License-Identifier: Apache-2.0

// Package pack is the form of start packs: the blocks of an image, of 4 KiB
// each, that a recorded start reads, in the order of the first reads, as one
// Brotli stream (RFC 7932).
//
// Chunks are 256 KiB, of which a start needs a part, and pages by themselves
// would be a round trip each. A pack is one answer that holds what a start
// needs and nothing else.
//
// It is made once, of a recorded start, and then waited for by every start: so
// making it may take long, and its bytes count. Of the same blocks Brotli makes a
// sixth less than the best level of zstd that is written in Go, and takes some
// 30 s for 14 MiB, where zstd takes one. Reading it takes more than zstd's as well,
// 8 ms a MiB, which is less than a line of 300 Mbit/s needs to bring it. Chunks are
// made while somebody waits for a conversion, and stay zstd.
//
// A pack needs no trust and no signature. It holds, ahead of each block of
// data, the blocks of the hash tree above it that were not sent before. So
// every block is held against the verity root of the signed manifest as soon as
// it is there (verity.Prover), and one that is not proven is never handed on.
// Whoever makes a pack, and whoever serves it, can only decide what a start
// finds early; a lie ends the pack, and the start goes on by chunks. What came
// before a lie, or a break, was proven and stays good.
//
// For that reason a mirror has it under a name that follows from the image's
// (Name), and not under its own hash: the hash would prove less than the root
// does, and to ask for it first would be a round trip more. It would also make
// one mirror answer for what another said: under the image's name each mirror
// answers for itself, and the one that lies is the one that is recorded. A newer
// pack takes the place of an older one.
//
// Plain, a pack is
//
//	"zos start pack 2\n"
//	the verity root of its image, 32 bytes
//	uvarint: the length of the index in bytes
//	the index: an extent.List, each block of the disk at most once
//	the blocks of the index, in its order
//
// and nothing behind that. It has at most MaxBlocks blocks, of which at most
// MaxHashes are of the hash tree. Version 1 was the same as a zstd stream under
// another name: who reads one version never asks for the other.
package pack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/andybalholm/brotli"

	"github.com/zos-node/zos/zimage/extent"
	"github.com/zos-node/zos/zimage/verity"
)

const (
	magic = "zos start pack 2\n"
	// MaxBlocks bounds a pack: 128 MiB. A start that reads more needs its image.
	MaxBlocks = 1 << 15
	// MaxHashes bounds what a reader keeps in memory: 16 MiB. They stand for 2 GiB
	// of data in a row.
	MaxHashes = 1 << 12
	// MaxWire bounds a pack as it travels, in bytes.
	MaxWire  = MaxBlocks*verity.BlockSize + maxIndex + 1<<20
	maxIndex = MaxBlocks * 2 * binary.MaxVarintLen64
	// window is the logarithm of how many bytes Brotli looks back: 8 MiB. Whatever a
	// stream says, reading it takes no more than 16 MiB of memory for that.
	window = 23
)

// Name is a mirror's name for the pack of an image with the hex digits of its id.
func Name(hex string) string { return "starts/" + hex + ".br" }

// Image is what must be known of an image.
type Image struct {
	DataSize int64 // bytes in front of the hash tree
	Root     [verity.HashSize]byte
}

// Made says what Write did.
type Made struct {
	Blocks int64 `json:"blocks"` // all that are in the pack
	Hashes int64 `json:"hashes"` // of these, of the hash tree
	Left   int64 `json:"left"`   // blocks of the start that are not in it, since it would be too large
}

// order is what goes into the pack of a start: its blocks, and ahead of each
// what proves it. What would make the pack too large is left out at the end.
func order(p *verity.Prover, start extent.List) (l extent.List, made Made) {
	in := extent.NewSet(p.Blocks())
	full := false
	for _, e := range start {
		for b := e.First; b < e.End(); b++ {
			if in.Has(b) {
				continue
			}
			need := []int64{b}
			for at, more := b, true; more; {
				if at, _, more = p.Above(at); more && in.Has(at) {
					break
				} else if more {
					need = append(need, at)
				}
			}
			hashes := int64(len(need))
			if p.IsData(b) {
				hashes--
			}
			if full = full || made.Blocks+int64(len(need)) > MaxBlocks || made.Hashes+hashes > MaxHashes; full {
				made.Left++
				continue
			}
			for i := len(need) - 1; i >= 0; i-- {
				in.Add(need[i])
				l = l.Add(need[i])
			}
			made.Blocks, made.Hashes = made.Blocks+int64(len(need)), made.Hashes+hashes
		}
	}
	return l, made
}

// Write makes the pack of what a start reads. read gives blocks of the image,
// which are proven before they are written. The same start makes the same bytes.
func Write(w io.Writer, img Image, start extent.List, read func(block int64, b []byte) error) (made Made, err error) {
	z := brotli.NewWriterOptions(w, brotli.WriterOptions{Quality: brotli.BestCompression, LGWin: window})
	made, err = write(z, img, start, read)
	if err != nil {
		return Made{}, errors.Join(fmt.Errorf("start pack: %w", err), z.Close())
	}
	if err := z.Close(); err != nil {
		return Made{}, fmt.Errorf("start pack: %w", err)
	}
	return made, nil
}

// write writes a pack plain.
func write(w io.Writer, img Image, start extent.List, read func(block int64, b []byte) error) (made Made, err error) {
	p, err := verity.NewProver(img.DataSize, img.Root)
	if err != nil {
		return Made{}, err
	}
	for _, e := range start {
		if e.First < 0 || e.Blocks < 1 || e.First > p.Blocks() || e.Blocks > p.Blocks()-e.First {
			return Made{}, fmt.Errorf("%w: blocks %d to %d of %d", extent.ErrList, e.First, e.End(), p.Blocks())
		}
	}
	list, made := order(p, start)
	if made.Blocks == 0 {
		return Made{}, errors.New("a start that reads nothing")
	}
	index := list.Encode(maxIndex)
	head := append([]byte(magic), img.Root[:]...)
	head = append(binary.AppendUvarint(head, uint64(len(index))), index...)
	if _, err := w.Write(head); err != nil {
		return Made{}, err
	}
	b := make([]byte, verity.BlockSize)
	for _, e := range list {
		for k := e.First; k < e.End(); k++ {
			err := read(k, b)
			if err == nil {
				err = p.Prove(k, b)
			}
			if err == nil {
				_, err = w.Write(b)
			}
			if err != nil {
				return Made{}, fmt.Errorf("block %d: %w", k, err)
			}
		}
	}
	return made, nil
}

// ErrPack means bytes that are no pack of this image.
var ErrPack = errors.New("start pack refused")

// Reading is who wants a pack.
type Reading struct {
	// Index, which is called once, hears which blocks are to come.
	Index func(extent.List) error
	// Block takes a block, proven. It must not keep the bytes.
	Block func(block int64, b []byte) error
}

// Read reads a pack and hands on each block when it is proven. An error of a
// pack that is wrong, also one that ends too early, is an ErrPack; one of whoever
// reads comes back as it is. A read error of r is one of these two.
func Read(r io.Reader, img Image, to Reading) error {
	p, err := verity.NewProver(img.DataSize, img.Root)
	if err != nil {
		return err
	}
	// A bomb gets nowhere: the index says how much may come, and what a stream may
	// ask of memory is bounded, since large windows (RFC 9841) are not accepted.
	in := bufio.NewReaderSize(brotli.NewReader(r), verity.BlockSize)
	list, err := readIndex(in, p, img.Root)
	if err != nil {
		return err
	}
	if err := to.Index(list); err != nil {
		return err
	}
	b := make([]byte, verity.BlockSize)
	for _, e := range list {
		for k := e.First; k < e.End(); k++ {
			if _, err := io.ReadFull(in, b); err != nil {
				return fmt.Errorf("%w: at block %d: %w", ErrPack, k, err)
			}
			if err := p.Prove(k, b); err != nil {
				return fmt.Errorf("%w: %w", ErrPack, err)
			}
			if err := to.Block(k, b); err != nil {
				return err
			}
		}
	}
	switch _, err := in.ReadByte(); {
	case err == nil:
		return fmt.Errorf("%w: something is behind its last block", ErrPack)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("%w: behind its last block: %w", ErrPack, err)
	}
	return nil
}

// readIndex reads all that is in front of the blocks.
func readIndex(in *bufio.Reader, p *verity.Prover, root [verity.HashSize]byte) (extent.List, error) {
	head := make([]byte, len(magic)+len(root))
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, fmt.Errorf("%w: its head: %w", ErrPack, err)
	}
	if string(head[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: it does not begin as one", ErrPack)
	}
	if string(head[len(magic):]) != string(root[:]) {
		return nil, fmt.Errorf("%w: it is of verity root %x, want %x", ErrPack, head[len(magic):], root)
	}
	size, err := binary.ReadUvarint(in)
	if err != nil {
		return nil, fmt.Errorf("%w: its index: %w", ErrPack, err)
	}
	if size == 0 || size > maxIndex {
		return nil, fmt.Errorf("%w: an index of %d bytes, at most %d are allowed", ErrPack, size, maxIndex)
	}
	index := make([]byte, size)
	if _, err := io.ReadFull(in, index); err != nil {
		return nil, fmt.Errorf("%w: its index: %w", ErrPack, err)
	}
	list, err := extent.Decode(index, p.Blocks())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPack, err)
	}
	if n := list.Blocks(); n > MaxBlocks {
		return nil, fmt.Errorf("%w: %d blocks, at most %d are allowed", ErrPack, n, MaxBlocks)
	}
	hashes := 0
	for _, e := range list {
		for k := e.First; k < e.End(); k++ {
			if !p.IsData(k) {
				hashes++
			}
		}
	}
	if hashes > MaxHashes {
		return nil, fmt.Errorf("%w: %d blocks of the hash tree, at most %d are allowed", ErrPack, hashes, MaxHashes)
	}
	return list, nil
}
