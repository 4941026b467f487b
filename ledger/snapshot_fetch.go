// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// How much of a snapshot is read. Most of what it has of an entry is either the
// entry itself, of MaxEntry, as of a deployment, or what was in its payload, as of a
// node: of that three quarters are payload, the rest is base64, and JSON makes at
// most six bytes of one. The rest, its numbers and the digest of what it says, is
// small beside that; a state before the first entry has the tree's edges. So a
// snapshot that is larger than the log of its tree can make it is a lie.
//
// A log of small entries has 43 bytes of each (docs/ledger.md). maxSnapshot is what a
// reader takes, however long the log is: more is no lie, but it is not read.
const (
	perEntry    = 5 * MaxEntry
	beside      = 4 << 10
	maxSnapshot = 1 << 30
)

// errNoSnapshot says that there is no snapshot to start from: none is there, it is
// too new or too large, or it did not come. That is no fault; what a wrong one is.
var errNoSnapshot = errors.New("no snapshot to start from")

// allowed is how large the snapshot of a log can be, and what one is that is larger.
func allowed(from source, size int64) (int64, error) {
	if most := beside + size*perEntry; size < maxSnapshot/perEntry {
		return most, fmt.Errorf("has more than the %d bytes that a log of %d entries can make of it", most, size)
	}
	return maxSnapshot, fmt.Errorf("%w: that of %s has more than %d bytes", errNoSnapshot, from, maxSnapshot)
}

// fromSnapshot begins with a source's snapshot, which the checkpoint's tree proves.
// It is taken apart as it comes, and is nowhere as a whole.
func fromSnapshot(ctx context.Context, h *head, hashes tlog.HashReader) (_ *State, err error) {
	from, tree := h.from, h.checkpoint.Tree
	start := time.Now()
	body, err := from.open(ctx, snapshotPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s has none", errNoSnapshot, from)
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoSnapshot, err)
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	most, over := allowed(from, tree.N)
	r := newSnapReader(body, most, over)
	var leaf []byte
	var unproven error
	s, err := readSnapshot(r, func(s *State) error {
		leaf, unproven = lastLeaf(ctx, h, hashes, s)
		return unproven
	})
	h.rate = float64(most-r.left) / time.Since(start).Seconds()
	switch {
	case unproven != nil:
		return nil, unproven
	case errors.Is(err, errNoSnapshot):
		return nil, err
	case errors.Is(err, ErrUnreachable):
		return nil, fmt.Errorf("%w: %w", errNoSnapshot, err)
	case err != nil:
		return nil, forged(from, err)
	}
	want := blockLeaf(Block{Height: s.height, TimeMs: s.timeMs, StateRoot: s.StateRoot()})
	if !bytes.Equal(leaf, want) {
		return nil, forged(from, fmt.Errorf("snapshot: has state root %s, but the block that ends with entry %d has another", s.StateRoot(), s.Size()-1))
	}
	return s, nil
}

// lastLeaf checks that a snapshot that was begun is one of the log, and reads the
// leaf of the block that it ends with.
func lastLeaf(ctx context.Context, h *head, hashes tlog.HashReader, s *State) (leaf []byte, err error) {
	from, tree := h.from, h.checkpoint.Tree
	if s.Size() > tree.N {
		return nil, fmt.Errorf("%w: %s has one of %d entries, which is newer than its checkpoint", errNoSnapshot, from, s.Size())
	}
	if s.Size() < 2 {
		return nil, forged(from, errors.New("snapshot: is of an empty log"))
	}
	was, err := tlog.TreeHash(s.Size(), hashes)
	if err != nil {
		return nil, forged(from, err)
	}
	if was != s.tree.Hash() {
		return nil, forged(from, fmt.Errorf("snapshot: has another tree of size %d than the log", s.Size()))
	}
	err = eachEntry(ctx, from, tree, hashes, s.Size()-1, s.Size(), func(_ int64, raw []byte) error {
		leaf = slices.Clone(raw)
		return nil
	})
	return leaf, err
}
