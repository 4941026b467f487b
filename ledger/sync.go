// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// Sync brings the state up to the newest checkpoint that a ledger has. It asks
// all of them, at once, and takes from the newest that passes every check; the
// others are held against it. Nothing is taken from one that fails a check.
// When two pass every check and contradict each other, none is believed. When
// all fail, the error has the reason of each.
func (c *Client) Sync(ctx context.Context) error {
	c.sync.Lock()
	defer c.sync.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: nobody was asked: %w", ErrUnreachable, err)
	}
	heads := c.look(ctx)
	var all []error
	refuse := func(h *head, err error) {
		h.err = err
		all = append(all, err)
		if errors.Is(err, errBehind) {
			return
		}
		c.cfg.Log.Warn("a ledger was refused", "part", "ledger", "ledger", h.from.String(), "err", err)
		c.cfg.OnRefused(h.from.String(), err)
	}
	var ok []*head
	for _, h := range heads {
		if h.err == nil {
			h.err = c.older(h)
		}
		if h.err != nil {
			refuse(h, h.err)
			continue
		}
		ok = append(ok, h)
	}
	if len(ok) == 0 {
		for _, h := range merged(heads) {
			if err := c.older(h); err == nil {
				ok = append(ok, h)
			}
		}
	}
	slices.SortStableFunc(ok, func(a, b *head) int {
		return cmp.Or(cmp.Compare(b.checkpoint.N, a.checkpoint.N), cmp.Compare(b.checkpoint.FreshSec, a.checkpoint.FreshSec))
	})
	again := ok
	for way := first(len(ok)); way <= wholly && len(again) > 0 && ctx.Err() == nil; way++ {
		now := again
		again = nil
		slices.SortStableFunc(now, func(a, b *head) int { return cmp.Compare(b.rate, a.rate) }) // all 0 at first
		for _, h := range now {
			next, err := c.tryFrom(ctx, h, way)
			if errors.Is(err, errNoSnapshot) && way < wholly && ctx.Err() == nil {
				c.cfg.Log.Info("a ledger gave no snapshot, another way is tried", "part", "ledger", "ledger", h.from.String(), "err", err)
				h.missed, again = err, append(again, h)
				continue
			}
			if errors.Is(err, ErrPruned) {
				err = errors.Join(err, h.missed)
			}
			if err == nil && next != nil {
				// Those behind it, and those of the same size.
				for _, other := range ok[slices.Index(ok, h)+1:] {
					if other.err != nil {
						continue
					}
					if err := c.against(ctx, next, other); errors.Is(err, errBoth) {
						return fmt.Errorf("%w: %s and %s contradict each other at size %d, and both have the signatures that the root of trust demands: more than a third of the validators are dishonest, or their keys were stolen; nothing is believed",
							ErrFork, h.from, other.from, other.checkpoint.N)
					} else if err != nil {
						refuse(other, err)
					}
				}
				err = c.accept(next)
			}
			if err == nil {
				c.report(heads)
				return nil
			}
			refuse(h, err)
			if ctx.Err() != nil {
				break
			}
		}
	}
	for _, h := range again { // there was no time for another way
		refuse(h, h.missed)
	}
	c.report(heads)
	return errors.Join(all...)
}

// tryFrom tries again when tiles vanish: the ledger went on meanwhile, and
// only the widest of the partial ones are kept; or it pruned what follows the
// snapshot that was just read, and has a newer one.
func (c *Client) tryFrom(ctx context.Context, h *head, way way) (next *view, err error) {
	for range 5 {
		if next, err = c.advance(ctx, h, way); err == nil || !errors.Is(err, fs.ErrNotExist) && !(c.cfg.Snapshot && errors.Is(err, ErrPruned)) {
			return next, err
		}
		again := c.lookAt(ctx, h.from)
		if again.err != nil {
			return nil, again.err
		}
		*h = *again
	}
	return nil, err
}

// tryWays tries one ledger alone.
func (c *Client) tryWays(ctx context.Context, h *head) (*view, error) {
	next, err := c.tryFrom(ctx, h, patient)
	if errors.Is(err, errNoSnapshot) && ctx.Err() == nil {
		next, err = c.tryFrom(ctx, h, wholly)
	}
	return next, err
}

// way is how to start where nothing was seen, or not what comes next. What cannot
// be done with one ledger one way is tried with all of them before the next way.
type way int

const (
	hurried way = iota // from a snapshot that comes soon: another ledger may be nearer
	patient            // from a snapshot, however long that takes
	wholly             // from entry 0
)

// first is the way to begin with: with a single ledger there is nothing to hurry for.
func first(ledgers int) way {
	if ledgers > 1 {
		return hurried
	}
	return patient
}

// advance makes the view of a checkpoint, nil when it is the one that is there.
func (c *Client) advance(ctx context.Context, h *head, way way) (*view, error) {
	c.mu.Lock()
	trusted, floor, old := c.trust, c.floor, c.view
	c.mu.Unlock()
	from, cp := h.from, h.checkpoint
	if cp.N == old.state.Size() {
		c.mu.Lock()
		if cp.FreshSec > c.view.checkpoint.FreshSec { // it was signed anew
			c.view.checkpoint = cp
		}
		c.mu.Unlock()
		return nil, nil
	}
	hashes := newProven(ctx, from, cp.Tree)
	if floor.N > 0 && floor.N < cp.N {
		// The root at the old size, computed from hashes that the new root
		// proves, is a consistency proof.
		was, err := tlog.TreeHash(floor.N, hashes)
		if err != nil {
			return nil, forged(from, err)
		}
		if was != floor.Hash {
			return nil, fmt.Errorf("%w: %s had another root hash at size %d than what was seen before", ErrFork, from, floor.N)
		}
	}
	next := view{state: old.state.Clone(), checkpoint: cp, entries: old.entries[:len(old.entries):len(old.entries)]}
	quick := c.cfg.Snapshot && !c.cfg.KeepEntries && c.take == nil && way < wholly
	var err error
	if quick && old.state.Size() == 0 {
		err = c.leap(ctx, h, hashes, &next, way)
	}
	if err == nil {
		err = c.fold(ctx, h, hashes, &next)
	}
	if quick && errors.Is(err, ErrPruned) && old.state.Size() > 0 {
		// It was away for so long that what came next is gone.
		past := next.state.Size()
		if quickly := c.leap(ctx, h, hashes, &next, way); quickly != nil {
			err = quickly
		} else if next.state.Size() > past {
			err = c.fold(ctx, h, hashes, &next)
		}
	}
	if err != nil {
		return nil, err
	}
	if next.trust, err = agree(trusted, h.under, next); err != nil {
		return nil, forged(from, err)
	}
	return &next, nil
}

// leap begins a view with the snapshot of a ledger.
func (c *Client) leap(ctx context.Context, h *head, hashes tlog.HashReader, next *view, way way) error {
	if way == hurried {
		var end context.CancelFunc
		ctx, end = context.WithTimeoutCause(ctx, c.limits.soon, fmt.Errorf("%w: the snapshot did not come within %s", errSlow, c.limits.soon))
		defer end()
	}
	s, err := fromSnapshot(ctx, h, hashes)
	if err != nil {
		return err
	}
	next.state = s
	if c.begin != nil {
		return c.begin(s)
	}
	return nil
}

// fold brings a view to its checkpoint, entry by entry.
func (c *Client) fold(ctx context.Context, h *head, hashes tlog.HashReader, next *view) error {
	fold := NewFold(next.state)
	var own error // of our own disk, and no fault of the source's
	cp := h.checkpoint
	err := eachAhead(ctx, h.from, cp.Tree, hashes, next.state.Size(), cp.N, fold.Ahead, func(i int64, raw []byte) error {
		c.cfg.Progress("entries", i+1, cp.N)
		if c.cfg.KeepEntries {
			next.entries = append(next.entries, raw)
		}
		if c.each != nil {
			c.each(raw)
		}
		if c.take != nil {
			if own = c.take(i, raw); own != nil {
				return own
			}
		}
		return fold.Add(raw)
	})
	if own != nil {
		return own
	}
	if err == nil {
		err = fold.Done()
	}
	if err != nil {
		return forged(h.from, err)
	}
	return nil
}

// accept makes a view the present one.
func (c *Client) accept(next *view) error {
	if err := c.save(next.trust, next.checkpoint); err != nil {
		return err
	}
	c.mu.Lock()
	c.trust, c.floor, c.view = next.trust, next.checkpoint.Tree, *next
	c.since = time.Unix(next.checkpoint.TimeSec, 0)
	c.mu.Unlock()
	c.cfg.Log.Debug("caught up", "part", "ledger", "size", next.checkpoint.N)
	return nil
}

// agree checks that the roots of trust on the log continue the one that is
// trusted, and that the checkpoint is one that the newest of them believes.
// That one is trusted from now on.
func agree(trusted trust, under *Root, v view) (trust, error) {
	if v.state.Size() != v.checkpoint.N || v.state.tree.Hash() != v.checkpoint.Hash {
		return trust{}, fmt.Errorf("folding gives another tree than the checkpoint of size %d", v.checkpoint.N)
	}
	newest := v.state.Root()
	if newest == nil {
		return trust{}, errors.New("the log has no root of trust")
	}
	on := v.state.RootEnvelope(trusted.root.Version)
	if on == nil {
		return trust{}, fmt.Errorf("the log ends with root version %d, but version %d is trusted: it stood still before that, or this is another ledger", newest.Version, trusted.root.Version)
	}
	a, err := Decode(on)
	if err != nil {
		return trust{}, err
	}
	b, err := Decode(trusted.envelope)
	if err != nil {
		return trust{}, err
	}
	if !a.says(b) {
		return trust{}, fmt.Errorf("root version %d on the log is not the trusted one: this is another ledger, or the wrong --root", trusted.root.Version)
	}
	if newest.Version != under.Version {
		if _, err := newest.Checkpoints().Open(v.checkpoint.Note); err != nil {
			return trust{}, fmt.Errorf("under root version %d, which is on the log: %w", newest.Version, err)
		}
	}
	return trust{newest, v.state.RootEnvelope(newest.Version)}, nil
}
