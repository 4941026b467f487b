// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/ledger"
)

// Client is what is used of ledger.Client.
type Client interface {
	Sync(ctx context.Context) error
	State() *ledger.State
}

// Ledger is a client that others can wait on. It also remembers over restarts
// which log state the node acted on last: an adopted deployment may have to
// record something before the ledger is reached again.
type Ledger struct {
	client Client
	takers []ledger.Taker
	clock  clock.Clock
	path   string // of the remembered Acted

	mu      sync.Mutex
	changed chan struct{}
	kick    chan struct{}
	acted   ledger.Acted
	size    int64
	heard   time.Time // when size last changed
	refused []Refusal
	liars   map[string]bool // ledgers that the last Sync did not take from
	witness witness
}

// Refusal is a ledger that the client did not take anything from.
type Refusal struct {
	Ledger string
	Err    error
}

// NewLedger starts without a client; Open gives it one. path is where it
// remembers the state that was acted on.
func NewLedger(clk clock.Clock, path string) (*Ledger, error) {
	l := &Ledger{clock: clk, path: path, changed: make(chan struct{}), kick: make(chan struct{}, 1)}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("last log state: %w", err)
	}
	if err := json.Unmarshal(b, &l.acted); err != nil {
		return nil, fmt.Errorf("last log state: %w", err)
	}
	return l, nil
}

// Use sets the client, and who takes entries, before anything else is called.
func (l *Ledger) Use(c Client, takers []ledger.Taker) { l.client, l.takers = c, takers }

// stale is how long one of several ledgers may be behind what was seen: while
// entries come in, one always is, and that is no roll-back.
const stale = time.Minute

// Open opens a client of the ledgers of cfg and uses it. It starts from a
// cosigned snapshot where a ledger has one.
func (l *Ledger) Open(cfg ledger.ClientConfig) error {
	cfg.OnRefused, cfg.Snapshot = l.OnRefused, true
	if len(cfg.Ledgers) > 1 {
		cfg.StaleAfter = stale
	}
	c, err := ledger.OpenClient(cfg)
	if err != nil {
		return err
	}
	// The same client submits: it has the newest root of trust, which no receipt then
	// has to be followed to again.
	l.Use(c, c.Takers())
	return nil
}

// OnRefused is for ledger.ClientConfig.
func (l *Ledger) OnRefused(url string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = append(l.refused, Refusal{url, err})
	if l.liars == nil {
		l.liars = map[string]bool{}
	}
	l.liars[url] = true
}

// Refused gives and forgets what OnRefused heard.
func (l *Ledger) Refused() []Refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.refused
	l.refused = nil
	return r
}

// Sync brings the state up to date and wakes who waits for a change.
func (l *Ledger) Sync(ctx context.Context) error {
	if err := l.client.Sync(ctx); err != nil {
		return err
	}
	s := l.client.State()
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.Size() == l.size {
		return nil
	}
	l.witness.looks(s)
	if len(l.refused) == 0 {
		l.liars = nil // every ledger that was asked was believed
	}
	// What cannot be kept is not acted on: the next Sync tries again.
	b, err := json.Marshal(s.Acted())
	if err != nil {
		return fmt.Errorf("last log state: %w", err)
	}
	if err := renameio.WriteFile(l.path, b, 0o600); err != nil {
		return fmt.Errorf("last log state: %w: %w", ledger.ErrState, err)
	}
	l.size, l.heard, l.acted = s.Size(), l.clock.Now(), s.Acted()
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

// State implements deploy.Ledger.
func (l *Ledger) State() *ledger.State { return l.client.State() }

// Acted implements deploy.Ledger and record.Ledger.
func (l *Ledger) Acted() ledger.Acted {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acted
}

// Changed implements deploy.Ledger.
func (l *Ledger) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Submit implements deploy.Ledger and record.Ledger, by the rule of ledger.SubmitTo.
// What was accepted will be seen at once: the loop is woken.
func (l *Ledger) Submit(ctx context.Context, entry []byte) (ledger.Receipt, error) {
	l.mu.Lock()
	l.witness.asks(l.client.State(), entry, l.clock.Now())
	l.mu.Unlock()
	r, err := ledger.SubmitTo(ctx, l.order(), entry, func() error {
		now, state := l.clock.Now(), l.client.State()
		if err := state.Check(l.NowMs(now), entry); err != nil {
			return err
		}
		// The estimate begins with the last block, which is long ago where nobody
		// says anything: a voucher may have ended since, as the own clock agrees.
		return state.Check(now.UnixMilli(), entry)
	})
	if err == nil {
		select {
		case l.kick <- struct{}{}:
		default:
		}
	}
	return r, err
}

// order has the ledgers that are not known to lie first.
func (l *Ledger) order() []ledger.Taker {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := slices.Clone(l.takers)
	slices.SortStableFunc(out, func(a, b ledger.Taker) int {
		switch {
		case l.liars[a.URL] == l.liars[b.URL]:
			return 0
		case l.liars[b.URL]:
			return -1
		}
		return 1
	})
	return out
}

// Has implements record.Ledger.
func (l *Ledger) Has(entry []byte) bool {
	e, err := ledger.Decode(entry)
	if err != nil {
		return false
	}
	_, ok := l.client.State().Indexed(e)
	return ok
}

// Kicked delivers when something was submitted.
func (l *Ledger) Kicked() <-chan struct{} { return l.kick }

// NowMs estimates the ledger's time, which stands still while nobody says
// anything: its last block's time and what has passed here since that was seen.
func (l *Ledger) NowMs(now time.Time) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client.State().TimeMs() + now.Sub(l.heard).Milliseconds()
}
