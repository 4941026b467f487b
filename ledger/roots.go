// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"

	"github.com/zos-node/zos/ledger/tiles"
)

// maxRoots bounds how many roots of trust are read after the trusted one: every
// change of anybody's key is a root, and a hundred of them a day make so many in
// three years. Each has the signatures of the one before, so no mirror can make one.
const maxRoots = 100_000

// walked is how far the roots of one ledger were followed. It is no trust: whoever
// has the keys of the root role can have signed two that follow the same one, of
// which the log has but one, and only agree says which. Kept is what need not be
// fetched and checked again.
type walked struct {
	base  trust   // where it began
	n     int     // roots after that
	chain []*Root // of roots in a row that believe the same checkpoints, the newest
}

// newest is the last root.
func (w *walked) newest() *Root { return w.chain[len(w.chain)-1] }

// further has a walk with one more root. What was given away does not change.
func (w *walked) further(r *Root) {
	if before := len(w.chain) - 1; reflect.DeepEqual(w.chain[before].Checkpoints(), r.Checkpoints()) {
		w.chain = append(w.chain[:before:before], r)
	} else {
		w.chain = append(w.chain[:before+1:before+1], r)
	}
	w.n++
}

// on reads the roots that a ledger has after those of the walk. What it came to
// before an error stays.
func (w *walked) on(ctx context.Context, from source, most int) error {
	for {
		version := w.newest().Version + 1
		b, err := from.get(ctx, rootPath(version), MaxEntry)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		if w.n >= most {
			return forged(from, fmt.Errorf("more than %d roots of trust follow version %d, which is trusted here: no ledger is known to have so many; take a newer root of trust (a newer image has one) if this one does", most, w.base.root.Version))
		}
		next, keys, err := DecodeRoot(b)
		if err == nil {
			err = next.Succeeds(w.newest(), keys)
		}
		if err != nil {
			return forged(from, fmt.Errorf("root version %d: %w", version, err))
		}
		w.further(next)
	}
}

// known is how far the roots of a ledger were followed from the one that is
// trusted now.
func (c *Client) known(from source) walked {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := c.walks[from]; ok && w.base.root.Version == c.trust.root.Version && bytes.Equal(w.base.envelope, c.trust.envelope) {
		return w
	}
	return walked{base: c.trust, chain: []*Root{c.trust.root}}
}

// follow is known, and on. It remembers what it came to also when it could not come
// to the end: the next one goes on there. What a ledger had that is not right is
// looked at from the beginning again.
func (c *Client) follow(ctx context.Context, from source) ([]*Root, error) {
	w := c.known(from)
	err := w.on(ctx, from, c.limits.roots)
	if errors.Is(err, ErrForged) {
		c.forget(from)
		return nil, err
	}
	c.mu.Lock()
	c.walks[from] = w
	c.mu.Unlock()
	return w.chain, err
}

// forget drops what is known of a ledger's roots: they may have been others than
// those of the log, as it has them now.
func (c *Client) forget(from source) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.walks, from)
}

// openCheckpoint opens a checkpoint under the newest root of a chain that
// accepts it. A log publishes a root just before the checkpoint that has it,
// so for a moment the checkpoint is still one of the root before. Which root
// counts is decided by the log itself, in agree.
func openCheckpoint(chain []*Root, signed []byte) (tiles.Checkpoint, *Root, error) {
	var first error
	for i := len(chain) - 1; i >= 0; i-- {
		cp, err := chain[i].Checkpoints().Open(signed)
		if err == nil {
			return cp, chain[i], nil
		}
		if first == nil {
			first = err
		}
	}
	return tiles.Checkpoint{}, nil, first
}

// rootPath is the place of a root of trust.
func rootPath(version int64) string { return fmt.Sprintf("root/%d.json", version) }
