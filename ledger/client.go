// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
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
	// Snapshot lets the first Sync start from a cosigned snapshot of the state
	// instead of from entry 0: whoever does not want to apply the rules to the
	// whole past. It has no effect with KeepEntries.
	Snapshot bool
	// KeepEntries keeps every entry in memory for Entries.
	KeepEntries bool
	HTTP        *http.Client // nil: a client of its own
	Log         *slog.Logger // nil: none
	// OnRefused is told of every ledger that was not believed (ErrForged,
	// ErrRollback, ErrFork) or not reached, also when another one served.
	OnRefused func(ledger string, err error)
}

// Client follows a ledger and believes nothing that it did not check.
type Client struct {
	cfg     ClientConfig
	sources []source

	sync  sync.Mutex       // one Sync at a time
	first int              // source to ask first
	each  func(raw []byte) // of Replay: told of each new entry, or nil

	mu    sync.Mutex // guards what follows
	trust trust
	floor tlog.Tree // what was seen before, possibly in an earlier life
	view  view
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
}

// Receipt says where an entry stands. Sync and an inclusion check prove it.
type Receipt struct {
	Index  int64 `json:"index"`
	Size   int64 `json:"size"`
	TimeMs int64 `json:"timeMs"`
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

// Sync brings the state up to a ledger's newest checkpoint. It asks one after
// the other until one passes every check; nothing is taken from one that does
// not. When all fail, the error has the reason of each.
func (c *Client) Sync(ctx context.Context) error {
	c.sync.Lock()
	defer c.sync.Unlock()
	var all []error
	for i := range c.sources {
		n := (c.first + i) % len(c.sources)
		news, err := c.syncFrom(ctx, c.sources[n])
		if err == nil {
			c.first = n
			if !news {
				// It may be frozen without being wrong: ask another one next time.
				c.first = (n + 1) % len(c.sources)
			}
			return nil
		}
		all = append(all, err)
		if ctx.Err() != nil {
			break
		}
		c.cfg.Log.Warn("a ledger was refused", "part", "ledger", "ledger", c.sources[n].String(), "err", err)
		c.cfg.OnRefused(c.sources[n].String(), err)
	}
	return errors.Join(all...)
}

// syncFrom tries again when tiles vanish: the ledger went on meanwhile, and
// only the widest of the partial ones are kept.
func (c *Client) syncFrom(ctx context.Context, from source) (news bool, err error) {
	for range 5 {
		if news, err = c.advance(ctx, from); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return news, err
		}
	}
	return false, err
}

func (c *Client) advance(ctx context.Context, from source) (news bool, err error) {
	c.mu.Lock()
	trusted, floor, old := c.trust, c.floor, c.view
	c.mu.Unlock()
	start := time.Now()

	chain, err := walkRoots(ctx, from, trusted)
	if err != nil {
		return false, err
	}
	signed, err := from.get(ctx, "checkpoint", tiles.MaxCheckpoint)
	if err != nil {
		return false, err
	}
	cp, under, err := openCheckpoint(chain, signed)
	if err != nil {
		return false, forged(from, err)
	}
	switch {
	case cp.N < floor.N:
		return false, fmt.Errorf("%w: %s has %d entries, %d were there before", ErrRollback, from, cp.N, floor.N)
	case cp.N == floor.N && cp.Hash != floor.Hash:
		return false, fmt.Errorf("%w: %s has another root hash at size %d", ErrFork, from, cp.N)
	case cp.N == old.state.Size():
		c.mu.Lock()
		c.view.checkpoint = cp
		c.mu.Unlock()
		return false, nil
	}
	hashes := newProven(ctx, from, cp.Tree)
	if floor.N > 0 && floor.N < cp.N {
		// The root at the old size, computed from hashes that the new root
		// proves, is a consistency proof.
		was, err := tlog.TreeHash(floor.N, hashes)
		if err != nil {
			return false, forged(from, err)
		}
		if was != floor.Hash {
			return false, fmt.Errorf("%w: %s had another root hash at size %d than what was seen before", ErrFork, from, floor.N)
		}
	}
	next := view{state: old.state.Clone(), checkpoint: cp, entries: old.entries[:len(old.entries):len(old.entries)]}
	if old.state.Size() == 0 && c.cfg.Snapshot && !c.cfg.KeepEntries {
		s, err := fromSnapshot(ctx, from, cp.Tree, hashes)
		if err != nil {
			return false, err
		}
		if s != nil {
			next.state = s
		}
	}
	fold := NewFold(next.state)
	err = eachEntry(ctx, from, cp.Tree, hashes, next.state.Size(), cp.N, func(_ int64, raw []byte) error {
		if c.cfg.KeepEntries {
			next.entries = append(next.entries, raw)
		}
		if c.each != nil {
			c.each(raw)
		}
		return fold.Add(raw)
	})
	if err == nil {
		err = fold.Done()
	}
	if err != nil {
		return false, forged(from, err)
	}
	if trusted, err = agree(trusted, under, next); err != nil {
		return false, forged(from, err)
	}
	if err := c.save(trusted, cp); err != nil {
		return false, err
	}
	c.mu.Lock()
	c.trust, c.floor, c.view = trusted, cp.Tree, next
	c.mu.Unlock()
	c.cfg.Log.Debug("caught up", "part", "ledger", "size", cp.N, "took", time.Since(start))
	return true, nil
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
	if a.id() != b.id() {
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
// *Refused; the same entry again gives the same receipt.
func (c *Client) Submit(ctx context.Context, entry []byte) (Receipt, error) {
	var all []error
	for _, s := range c.sources {
		r, err := s.submit(ctx, entry)
		var refused *Refused
		if err == nil || errors.As(err, &refused) {
			return r, err
		}
		all = append(all, err)
		if ctx.Err() != nil {
			break
		}
	}
	return Receipt{}, errors.Join(all...)
}

// Replay reads a log from its folder with every check that a Client makes and
// calls each for every entry. A server rebuilds itself so: the log is the
// only database. The state is the caller's to change.
func Replay(ctx context.Context, dir string, rootEnvelope []byte, each func(raw []byte)) (*State, error) {
	c, err := OpenClient(ClientConfig{Root: rootEnvelope, Ledgers: []string{dir}})
	if err != nil {
		return nil, err
	}
	c.each = each
	if _, err := c.advance(ctx, c.sources[0]); err != nil {
		return nil, err
	}
	return c.State(), nil
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
