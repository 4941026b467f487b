// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/zos-node/zos/ledger/tiles"
	"golang.org/x/mod/sumdb/tlog"
)

// ClientConfig says whom to trust and where to look.
type ClientConfig struct {
	Root    []byte   // envelope of the root of trust
	Ledgers []string // base URLs or folders, tried in turn, none trusted
	// StateFile keeps the last checkpoint over restarts, so that an older or
	// another history is noticed; "" keeps it in memory only.
	StateFile string
	// Snapshot lets a Sync start from a cosigned snapshot of the state instead
	// of from entry 0: the first one, and one whose next entries were pruned.
	// For whoever does not want to apply the rules to the whole past. It has no
	// effect with KeepEntries.
	Snapshot bool
	// KeepEntries keeps every entry in memory for Entries.
	KeepEntries bool
	HTTP        *http.Client // nil: a client of its own
	Log         *slog.Logger // nil: none
	// StaleAfter is how long a ledger may be behind what was seen before
	// without being refused for it (ErrRollback): where several validators and
	// mirrors publish, one is always a little behind. 0 is no time at all.
	StaleAfter time.Duration
	// OnRefused is told of every ledger that was not believed (ErrForged,
	// ErrRollback, ErrFork) or not reached, also when another one served.
	OnRefused func(ledger string, err error)
	// Progress, if there is one, is told how far long work is: "entries" that
	// were checked, "files" that were compared, of how many.
	Progress func(step string, done, total int64)
}

// Client follows a ledger and believes nothing that it did not check.
type Client struct {
	cfg     ClientConfig
	sources []source

	sync      sync.Mutex         // one Sync at a time
	each      func(raw []byte)   // of Replay: told of each new entry, or nil
	begin     func(*State) error // of Replay: told of the snapshot before those, or nil
	keepFresh bool

	mu    sync.Mutex // guards what follows
	trust trust
	floor tlog.Tree // what was seen before, possibly in an earlier life
	since time.Time // when floor was seen, by its cosignatures
	view  view
	seen  []LedgerStatus
}

// trust is a root of trust that was checked.
type trust struct {
	root     *Root
	envelope []byte
}

// view is what one Sync came to. It is replaced as a whole.
type view struct {
	state      *State
	checkpoint tiles.Checkpoint
	entries    [][]byte // with KeepEntries
	trust      trust    // the newest root in it
	fresh      [][]byte // entries since the view before, for a mirror
}

// OpenClient checks the root of trust, which is taken as given, and the state
// file. It asks no server; Sync does.
func OpenClient(cfg ClientConfig) (*Client, error) {
	root, keys, err := DecodeRoot(cfg.Root)
	if err != nil {
		return nil, err
	}
	if err := root.check("root", keys, nil); err != nil {
		return nil, fmt.Errorf("root of trust: %w", err)
	}
	if len(cfg.Ledgers) == 0 {
		return nil, errors.New("no ledger is given")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.OnRefused == nil {
		cfg.OnRefused = func(string, error) {}
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string, int64, int64) {}
	}
	web := http.Client{}
	if cfg.HTTP != nil {
		web = *cfg.HTTP
	}
	// A ledger has its files; it never sends elsewhere.
	web.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c := &Client{cfg: cfg, trust: trust{root, cfg.Root}, view: view{state: NewState()}}
	for _, ref := range cfg.Ledgers {
		s, err := openSource(ref, &web)
		if err != nil {
			return nil, err
		}
		c.sources = append(c.sources, s)
	}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// State is the state as of the last Sync. It does not change; a later Sync
// makes another one.
func (c *Client) State() *State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.view.state
}

// Acted is the state that an entry made now acts on.
func (c *Client) Acted() Acted { return c.State().Acted() }

// Checkpoint is the last one that was accepted; its size is 0 before the
// first Sync.
func (c *Client) Checkpoint() tiles.Checkpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.view.checkpoint
}

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
	slices.SortStableFunc(ok, func(a, b *head) int { return cmp.Compare(b.checkpoint.N, a.checkpoint.N) })
	for i, h := range ok {
		next, err := c.tryFrom(ctx, h)
		if err == nil && next != nil {
			// Those behind it, and those of the same size.
			for _, other := range ok[i+1:] {
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
	c.report(heads)
	return errors.Join(all...)
}

// tryFrom tries again when tiles vanish: the ledger went on meanwhile, and
// only the widest of the partial ones are kept; or it pruned what follows the
// snapshot that was just read, and has a newer one.
func (c *Client) tryFrom(ctx context.Context, h *head) (next *view, err error) {
	for range 5 {
		if next, err = c.advance(ctx, h); err == nil || !errors.Is(err, fs.ErrNotExist) && !(c.cfg.Snapshot && errors.Is(err, ErrPruned)) {
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

// advance makes the view of a checkpoint, nil when it is the one that is there.
func (c *Client) advance(ctx context.Context, h *head) (*view, error) {
	c.mu.Lock()
	trusted, floor, old := c.trust, c.floor, c.view
	c.mu.Unlock()
	from, cp := h.from, h.checkpoint
	if cp.N == old.state.Size() {
		c.mu.Lock()
		c.view.checkpoint = cp
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
	quick := c.cfg.Snapshot && !c.cfg.KeepEntries && !c.keepFresh
	var err error
	if quick && old.state.Size() == 0 {
		err = c.leap(ctx, h, hashes, &next)
	}
	if err == nil {
		err = c.fold(ctx, h, hashes, &next)
	}
	if quick && errors.Is(err, ErrPruned) && old.state.Size() > 0 {
		// It was away for so long that what came next is gone.
		past := next.state.Size()
		if quickly := c.leap(ctx, h, hashes, &next); quickly != nil {
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

// leap begins a view with the snapshot of a ledger, if it has one.
func (c *Client) leap(ctx context.Context, h *head, hashes tlog.HashReader, next *view) error {
	s, err := fromSnapshot(ctx, h.from, h.checkpoint.Tree, hashes)
	if err != nil || s == nil {
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
	cp := h.checkpoint
	err := eachAhead(ctx, h.from, cp.Tree, hashes, next.state.Size(), cp.N, fold.Ahead, func(i int64, raw []byte) error {
		c.cfg.Progress("entries", i+1, cp.N)
		if c.cfg.KeepEntries {
			next.entries = append(next.entries, raw)
		}
		if c.each != nil {
			c.each(raw)
		}
		if c.keepFresh {
			next.fresh = append(next.fresh, bytes.Clone(raw))
		}
		return fold.Add(raw)
	})
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
func agree(trusted, under trust, v view) (trust, error) {
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
	if newest.Version != under.root.Version {
		if _, err := newest.Checkpoints().Open(v.checkpoint.Note); err != nil {
			return trust{}, fmt.Errorf("under root version %d, which is on the log: %w", newest.Version, err)
		}
	}
	return trust{newest, v.state.RootEnvelope(newest.Version)}, nil
}

// Submit hands an entry to the first ledger that answers. A refusal is a
// *Refused; the same entry again gives the same receipt. The receipt is a proof
// that the log has the entry, and is checked: one that does not hold is an
// ErrForged, whatever the server says.
func (c *Client) Submit(ctx context.Context, entry []byte) (Receipt, error) {
	var all []error
	for _, s := range c.sources {
		r, err := s.submit(ctx, entry)
		var refused *Refused
		if errors.As(err, &refused) {
			return r, err
		}
		if err == nil {
			if err = c.checkReceipt(ctx, s, r, entry); err == nil {
				return r, nil
			}
			c.cfg.OnRefused(s.String(), err)
		}
		all = append(all, err)
		if ctx.Err() != nil {
			break
		}
	}
	return Receipt{}, errors.Join(all...)
}

// Replay reads a log from its folder with every check that a Client makes. A
// server rebuilds itself so: the log is the only database. It starts from the
// folder's snapshot, if there is one, of which begin is told, and calls each for
// every entry after it; with whole, it starts from entry 0. The state is the
// caller's to change.
func Replay(ctx context.Context, dir string, rootEnvelope []byte, whole bool, begin func(*State) error, each func(raw []byte)) (*State, error) {
	c, err := OpenClient(ClientConfig{Root: rootEnvelope, Ledgers: []string{dir}, Snapshot: !whole})
	if err != nil {
		return nil, err
	}
	c.begin, c.each = begin, each
	h := c.lookAt(ctx, c.sources[0])
	if h.err != nil {
		return nil, h.err
	}
	next, err := c.advance(ctx, h)
	if err != nil {
		return nil, err
	}
	return next.state, nil
}

// Submit hands an entry to one server. It needs no root of trust, and so it
// proves nothing: the receipt is what the server says.
func Submit(ctx context.Context, url string, web *http.Client, entry []byte) (Receipt, error) {
	if web == nil {
		web = http.DefaultClient
	}
	s, err := openSource(url, web)
	if err != nil {
		return Receipt{}, err
	}
	return s.submit(ctx, entry)
}
