// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
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
	Submit(ctx context.Context, entry []byte) (ledger.Receipt, error)
}

// Ledger is a client that others can wait on. It also remembers over restarts
// which log state the node acted on last: an adopted deployment may have to
// record something before the ledger is reached again.
type Ledger struct {
	client Client
	clock  clock.Clock
	path   string // of the remembered Acted

	mu      sync.Mutex
	changed chan struct{}
	kick    chan struct{}
	acted   ledger.Acted
	size    int64
	heard   time.Time // when size last changed
	refused []Refusal
}

// Refusal is a ledger that the client did not take anything from.
type Refusal struct {
	Ledger string
	Err    error
}

// NewLedger wraps a client. The client's OnRefused must be OnRefused of the
// result, so the client is made second and given by Use.
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

// Use sets the client, before anything else is called.
func (l *Ledger) Use(c Client) { l.client = c }

// OnRefused is for ledger.ClientConfig.
func (l *Ledger) OnRefused(url string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = append(l.refused, Refusal{url, err})
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
	l.size, l.heard, l.acted = s.Size(), l.clock.Now(), s.Acted()
	close(l.changed)
	l.changed = make(chan struct{})
	b, err := json.Marshal(l.acted)
	if err != nil {
		return fmt.Errorf("last log state: %w", err)
	}
	if err := renameio.WriteFile(l.path, b, 0o600); err != nil {
		return fmt.Errorf("last log state: %w", err)
	}
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

// Submit implements deploy.Ledger and record.Ledger. What was accepted will be
// seen at once: the loop is woken.
func (l *Ledger) Submit(ctx context.Context, entry []byte) (ledger.Receipt, error) {
	r, err := l.client.Submit(ctx, entry)
	if err == nil {
		select {
		case l.kick <- struct{}{}:
		default:
		}
	}
	return r, err
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
