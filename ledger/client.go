// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger/tiles"
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
	// Turns keeps, of each claim that is folded, why its node was allowed then:
	// State.Turn.
	Turns bool
	HTTP  *http.Client // nil: a client of its own
	Log   *slog.Logger // nil: none
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

	sync   sync.Mutex                          // one Sync at a time
	each   func(raw []byte)                    // of Replay: told of each new entry, or nil
	begin  func(*State) error                  // of Replay: told of the snapshot before those, or nil
	take   func(index int64, raw []byte) error // of a Mirror: given each new entry, or nil
	limits limits

	mu    sync.Mutex // guards what follows
	trust trust
	walks map[source]walked
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
	c := &Client{cfg: cfg, limits: usualLimits(), trust: trust{root, cfg.Root}, walks: map[source]walked{}, view: view{state: NewState()}}
	for _, ref := range cfg.Ledgers {
		s, err := openSource(ref, &web, &c.limits)
		if err != nil {
			return nil, err
		}
		c.sources = append(c.sources, s)
	}
	if err := c.load(); err != nil {
		return nil, err
	}
	if cfg.Turns {
		c.view.state.KeepTurns()
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
	next, err := c.advance(ctx, h, patient)
	if errors.Is(err, errNoSnapshot) && !errors.Is(err, ErrUnreachable) {
		next, err = c.advance(ctx, h, wholly)
	}
	if err != nil {
		return nil, err
	}
	return next.state, nil
}
