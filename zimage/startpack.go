// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"context"
	"fmt"
	"sort"

	"github.com/zos-node/zos/zimage/extent"
	"github.com/zos-node/zos/zimage/pack"
	"github.com/zos-node/zos/zimage/verity"
)

// StartPackObject makes the start pack of an image in the store from what a
// start reads. It takes the place of the one that a mirror has. progress, which may
// be nil, hears of the start's bytes.
func (s *Store) StartPackObject(ctx context.Context, id string, start extent.List, progress func(done, total int64)) (Object, pack.Made, error) {
	h, err := hexOf(id)
	if err != nil {
		return Object{}, pack.Made{}, err
	}
	m, err := s.Manifest(id)
	if err != nil {
		return Object{}, pack.Made{}, err
	}
	img, err := m.packImage()
	if err != nil {
		return Object{}, pack.Made{}, err
	}
	var wire bytes.Buffer
	r := &blocks{s: s, m: m, ctx: ctx, kept: map[int][]byte{}}
	p := &reporter{report: progress, total: start.Blocks() * verity.BlockSize}
	made, err := pack.Write(&wire, img, start, func(block int64, b []byte) error {
		if block*verity.BlockSize < m.DataSize {
			p.add(verity.BlockSize)
		}
		return r.read(block, b)
	})
	if err != nil {
		return Object{}, pack.Made{}, fmt.Errorf("start pack of %s: %w", id, err)
	}
	return object(pack.Name(h), wire.Bytes()), made, nil
}

// blocks reads single blocks of an image in a store.
type blocks struct {
	s    *Store
	m    Manifest
	ctx  context.Context
	kept map[int][]byte // chunks, by their place
	last []int          // these, the oldest first
}

// keptChunks is how many chunks are kept unpacked: a start goes to and fro.
const keptChunks = 64

func (r *blocks) read(block int64, b []byte) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	off := block * verity.BlockSize
	i := sort.Search(len(r.m.Chunks), func(i int) bool { c := r.m.Chunks[i]; return c.Off+c.Size > off })
	c := r.m.Chunks[i]
	plain, ok := r.kept[i]
	if !ok {
		var err error
		if plain, err = r.s.Chunk(c); err != nil {
			return err
		}
		if len(r.last) == keptChunks {
			delete(r.kept, r.last[0])
			r.last = r.last[1:]
		}
		r.kept[i], r.last = plain, append(r.last, i)
	}
	copy(b, plain[off-c.Off:])
	return nil
}
