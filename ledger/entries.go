// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Entries gives the raw entries up to the last Sync, each proven.
type Entries struct {
	c *Client
	v view
}

// Entries is a view of all entries as of now.
func (c *Client) Entries() Entries {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Entries{c, c.view}
}

// Len is the number of entries.
func (e Entries) Len() int64 { return e.v.checkpoint.N }

// Get returns one entry.
func (e Entries) Get(ctx context.Context, index int64) ([]byte, error) {
	var found []byte
	err := e.Range(ctx, index, index+1, func(_ int64, raw []byte) error {
		found = bytes.Clone(raw)
		return nil
	})
	return found, err
}

// Range calls f for the entries from first to before end.
func (e Entries) Range(ctx context.Context, first, end int64, f func(index int64, raw []byte) error) error {
	if first < 0 || end > e.Len() || first > end {
		return fmt.Errorf("entries %d to %d: the ledger has %d", first, end, e.Len())
	}
	if e.c.cfg.KeepEntries {
		for i := first; i < end; i++ {
			if err := f(i, e.v.entries[i]); err != nil {
				return err
			}
		}
		return nil
	}
	var all []error
	var own error // of f, which says nothing about the source
	for _, s := range e.c.sources {
		err := eachEntry(ctx, s, e.v.checkpoint.Tree, newProven(ctx, s, e.v.checkpoint.Tree), first, end, func(i int64, raw []byte) error {
			if own = f(i, raw); own != nil {
				return own
			}
			first = i + 1 // the next source goes on where this one failed
			return nil
		})
		if err == nil || own != nil {
			return own
		}
		all = append(all, err)
	}
	return errors.Join(all...)
}

// Prove fetches the proof that an entry is in the present tree.
func (e Entries) Prove(ctx context.Context, index int64) (EntryProof, error) {
	p := EntryProof{Index: index, Tree: e.v.checkpoint.Tree}
	err := e.try(ctx, func(h tlog.HashReader) (err error) {
		p.Proof, err = tlog.ProveRecord(p.Tree.N, index, h)
		return err
	})
	return p, err
}

// Consistent fetches and checks the proof that the present tree continues an
// older one.
func (e Entries) Consistent(ctx context.Context, older tlog.Tree) error {
	tree := e.v.checkpoint.Tree
	if older.N == 0 || older.N > tree.N {
		return fmt.Errorf("%w: size %d cannot continue size %d", ErrRollback, tree.N, older.N)
	}
	return e.try(ctx, func(h tlog.HashReader) error {
		proof, err := tlog.ProveTree(tree.N, older.N, h)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash); err != nil {
			return fmt.Errorf("%w: size %d does not continue size %d: %w", ErrFork, tree.N, older.N, err)
		}
		return nil
	})
}

// try asks the sources until one can serve a proof.
func (e Entries) try(ctx context.Context, f func(tlog.HashReader) error) error {
	var all []error
	for _, s := range e.c.sources {
		err := f(newProven(ctx, s, e.v.checkpoint.Tree))
		if err == nil || errors.Is(err, ErrFork) {
			return err
		}
		all = append(all, forged(s, err))
	}
	return errors.Join(all...)
}
