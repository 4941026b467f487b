// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/zos-node/zos/ledger/tiles"
	"golang.org/x/mod/sumdb/tlog"
)

// bundle is what one file of a log has of the entries that are wanted.
type bundle struct {
	first   int64
	entries [][]byte
	err     error
}

// readBundle reads bundle n, and checks every entry of it from first up to end
// against the tree: those it returns.
func readBundle(ctx context.Context, from source, tree tlog.Tree, hashes tlog.HashReader, n, first, end int64) bundle {
	w := int(min(tree.N-n*tiles.Width, tiles.Width))
	path, full := tiles.BundlePath(n, w), tiles.BundlePath(n, tiles.Width)
	b, err := wide(ctx, from, path, full, w, tiles.MaxBundle)
	if errors.Is(err, fs.ErrNotExist) {
		err = why(ctx, from, n, err)
	}
	if err != nil {
		return bundle{err: err}
	}
	entries, used, err := tiles.CutBundle(b, w)
	if err != nil || used != len(b) {
		return bundle{err: forged(from, fmt.Errorf("%s: %w", path, errors.Join(err, trailing(len(b)-used))))}
	}
	lo, hi := max(first, n*tiles.Width), min(n*tiles.Width+int64(w), end)
	indexes := make([]int64, 0, tiles.Width)
	for i := lo; i < hi; i++ {
		indexes = append(indexes, tlog.StoredHashIndex(0, i))
	}
	want, err := hashes.ReadHashes(indexes)
	if err != nil {
		return bundle{err: forged(from, err)}
	}
	entries = entries[lo-n*tiles.Width : hi-n*tiles.Width]
	for i, raw := range entries {
		if tlog.RecordHash(raw) != want[i] {
			return bundle{err: forged(from, fmt.Errorf("entry %d is not the one that the checkpoint covers", lo+int64(i)))}
		}
		entries[i] = bytes.Clone(raw) // who keeps one does not keep all
	}
	return bundle{first: lo, entries: entries}
}

// eachEntry reads the entries from first up to end, checks every one against
// the tree, and hands it on.
func eachEntry(ctx context.Context, from source, tree tlog.Tree, hashes tlog.HashReader, first, end int64, f func(index int64, raw []byte) error) error {
	for n := first / tiles.Width; n*tiles.Width < end; n++ {
		if err := readBundle(ctx, from, tree, hashes, n, first, end).each(from, f); err != nil {
			return err
		}
	}
	return nil
}

func (b bundle) each(from source, f func(index int64, raw []byte) error) error {
	if b.err != nil {
		return b.err
	}
	for i, raw := range b.entries {
		if err := f(b.first+int64(i), raw); err != nil {
			return forged(from, err)
		}
	}
	return nil
}

// eachAhead is eachEntry for a long way: while f has the entries of one bundle,
// open has those of the next, on all processors, and the one after that is
// being read. f gets them in order and none that was not checked.
func eachAhead(ctx context.Context, from source, tree tlog.Tree, hashes tlog.HashReader, first, end int64, open func([][]byte), f func(index int64, raw []byte) error) error {
	inner, cancel := context.WithCancel(ctx)
	read, opened := make(chan bundle), make(chan bundle)
	var all sync.WaitGroup
	defer all.Wait() // nobody reads hashes or the source afterwards
	defer cancel()
	pass := func(b bundle, on chan<- bundle) bool {
		select {
		case on <- b:
			return b.err == nil
		case <-inner.Done():
			return false
		}
	}
	all.Go(func() {
		defer close(read)
		for n := first / tiles.Width; n*tiles.Width < end && pass(readBundle(inner, from, tree, hashes, n, first, end), read); n++ {
		}
	})
	all.Go(func() {
		defer close(opened)
		for b := range read {
			open(b.entries)
			if !pass(b, opened) {
				return
			}
		}
	})
	next := first
	for b := range opened {
		if err := b.each(from, f); err != nil {
			return err
		}
		next = b.first + int64(len(b.entries))
	}
	if next < end {
		return fmt.Errorf("%w: %s: stopped at entry %d: %w", ErrUnreachable, from, next, ctx.Err())
	}
	return nil
}
