// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"sync"
	"time"

	cstypes "github.com/cometbft/cometbft/consensus/types"
	"github.com/cometbft/cometbft/libs/log"
)

// timeout is what CometBFT asks its timer for: consensus.timeoutInfo, which has
// no name outside of its package.
type timeout interface {
	~struct {
		Duration time.Duration         `json:"duration"`
		Height   int64                 `json:"height"`
		Round    int32                 `json:"round"`
		Step     cstypes.RoundStepType `json:"step"`
	}
}

// timer is consensus.TimeoutTicker.
type timer[T timeout] interface {
	Start() error
	Stop() error
	Chan() <-chan T
	ScheduleTimeout(T)
	SetLogger(log.Logger)
}

// pacer is CometBFT's timer, but for the beginning of a height: that comes when
// there are entries for its block, and after a while without them. It is the one
// place where a validator can wait for entries and still hear the others:
// CometBFT calls the app, PrepareProposal too, under the lock that it needs for
// each message of a peer, and what comes behind such a message on the same
// connection, cosignatures and entries, waits as well.
type pacer[T timeout] struct {
	timer[T]
	wait func(moved <-chan struct{}) // until there are entries, or it was long enough
	mu   sync.Mutex
	held chan struct{} // closed when the height that is held back matters no more; nil if none is
}

// newPacer waits as wait says, which returns early when its channel is closed.
func newPacer[T timeout](t timer[T], wait func(moved <-chan struct{})) *pacer[T] {
	return &pacer[T]{timer: t, wait: wait}
}

// ScheduleTimeout implements consensus.TimeoutTicker. What comes later takes the
// place of what came before.
func (p *pacer[T]) ScheduleTimeout(t T) {
	p.release()
	if step := (struct {
		Duration time.Duration         `json:"duration"`
		Height   int64                 `json:"height"`
		Round    int32                 `json:"round"`
		Step     cstypes.RoundStepType `json:"step"`
	})(t).Step; step != cstypes.RoundStepNewHeight {
		p.timer.ScheduleTimeout(t)
		return
	}
	moved := make(chan struct{})
	p.mu.Lock()
	p.held = moved
	p.mu.Unlock()
	go func() {
		p.wait(moved)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.held == moved {
			p.held = nil
			p.timer.ScheduleTimeout(t)
		}
	}()
}

// Stop implements consensus.TimeoutTicker.
func (p *pacer[T]) Stop() error {
	p.release()
	return p.timer.Stop()
}

func (p *pacer[T]) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil {
		close(p.held)
		p.held = nil
	}
}

// proposeWait is how long a height waits for entries before it begins with a
// block that has none, which CometBFT wants after each that changed the app hash.
const proposeWait = 100 * time.Millisecond

// arrivals returns when the mempool has something, when it was long enough, or
// when the height goes on without us.
func (e *Engine) arrivals(moved <-chan struct{}) {
	end := time.NewTimer(e.wait)
	defer end.Stop()
	look := time.NewTicker(2 * time.Millisecond) // for what peers send
	defer look.Stop()
	for e.node.Mempool().Size() == 0 {
		select {
		case <-e.came:
		case <-look.C:
		case <-moved:
			return
		case <-end.C:
			return
		case <-e.stop:
			return
		}
	}
}
