// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger/tiles"
)

// MaxConsensus bounds the file that says where the engine stood.
const MaxConsensus = 64 << 20

// Seed fills the empty folder of a log with that of a ledger as it was at its
// newest snapshot: every hash tile, the roots of trust, the snapshot, and those
// bundles that are needed to go on from there, or, with whole, all that there
// are. There is no checkpoint yet: whoever goes on from there makes it with the
// others. Each byte is proven by the checkpoint of the client's last Sync. What
// the engine said then ("consensus") is for check to judge, with the state.
func (c *Client) Seed(ctx context.Context, dir tiles.Dir, whole bool, check func(s *State, consensus []byte) error) (*State, error) {
	var all []error
	for _, from := range c.sources {
		s, err := c.seedFrom(ctx, from, dir, whole, check)
		if err == nil {
			return s, nil
		}
		all = append(all, err)
	}
	return nil, errors.Join(all...)
}

// mismatch is how often a snapshot is looked for whose parts fit together:
// between reading the one and the other a newer one may have come.
const mismatch = 5

func (c *Client) seedFrom(ctx context.Context, from source, dir tiles.Dir, whole bool, check func(*State, []byte) error) (s *State, err error) {
	var consensus []byte
	for i := range mismatch {
		if s, consensus, err = c.start(ctx, from); err == nil {
			if err = check(s, consensus); err == nil {
				break
			}
		}
		if i == mismatch-1 || errors.Is(err, ErrForged) {
			return nil, err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err := c.Sync(ctx); err != nil {
			return nil, err
		}
	}
	tree, size := c.Checkpoint().Tree, s.Size()
	hashes := newProven(ctx, from, tree)
	w := tiles.NewWriter(dir)
	list := tlog.NewTiles(tiles.Height, 0, size)
	for i, t := range list {
		c.cfg.Progress("tiles", int64(i)+1, int64(len(list)))
		b, err := tlog.ReadTileData(t, hashes)
		if err != nil {
			return nil, forged(from, err)
		}
		if err := w.Put(tiles.Path(t), b); err != nil {
			return nil, err
		}
	}
	if err := c.seedBundles(ctx, from, w, dir, tree, hashes, size, whole); err != nil {
		return nil, err
	}
	for v := int64(1); s.RootEnvelope(v) != nil; v++ {
		if err := w.WriteRoot(v, s.RootEnvelope(v)); err != nil {
			return nil, err
		}
	}
	if err := w.Put(snapshotPath, s.Snapshot()); err != nil {
		return nil, err
	}
	return s, w.Put(consensusPath, consensus)
}

// start reads where a ledger lets others start.
func (c *Client) start(ctx context.Context, from source) (*State, []byte, error) {
	h := &head{from: from, checkpoint: c.Checkpoint()}
	s, err := fromSnapshot(ctx, h, newProven(ctx, from, h.checkpoint.Tree))
	if errors.Is(err, errNoSnapshot) && !errors.Is(err, ErrUnreachable) {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if err != nil {
		return nil, nil, err
	}
	b, err := from.get(ctx, consensusPath, MaxConsensus)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w: %s has a snapshot, but does not say where its engine stood then; a mirror cannot, ask a validator", ErrUnreachable, from)
	}
	return s, b, err
}

// seedBundles copies bundles, and says which ones it does not.
func (c *Client) seedBundles(ctx context.Context, from source, w *tiles.Writer, dir tiles.Dir, tree tlog.Tree, hashes tlog.HashReader, size int64, whole bool) error {
	last := (size - 1) / tiles.Width
	first := last
	var archives []string
	if whole {
		first = 1
		if p, err := pruned(ctx, from); err == nil {
			first, archives = min(max(first, p.Before/tiles.Width), last), p.Archives
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if first > 1 {
		for _, ref := range c.cfg.Ledgers {
			if strings.Contains(ref, "://") && !whole && len(archives) < maxArchives {
				archives = append(archives, ref)
			}
		}
		if _, err := Prune(dir, first*tiles.Width, archives); err != nil {
			return err
		}
	}
	for n := int64(0); n <= last; n++ {
		if n > 0 && n < first {
			continue
		}
		end := min((n+1)*tiles.Width, size)
		var bundle []byte
		err := eachEntry(ctx, from, tree, hashes, n*tiles.Width, end, func(_ int64, raw []byte) error {
			bundle = tiles.AppendEntry(bundle, raw)
			return nil
		})
		if err != nil {
			return err
		}
		if err := w.Put(tiles.BundlePath(n, int(end-n*tiles.Width)), bundle); err != nil {
			return err
		}
	}
	return nil
}
