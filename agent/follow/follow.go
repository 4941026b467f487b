// SPDX-License-Identifier: Apache-2.0

// Package follow is the agent's main loop: it keeps up with the ledger, makes
// the node known there, and starts the life of every deployment that is this
// node's to run.
//
// It believes only what the ledger client has verified. A ledger that lies or
// cannot be reached is shown on the console once per change; the last good
// state stays, and what runs goes on. When a good ledger is there again, what
// the bad one did is reported on it.
package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/content"
	"github.com/zos-node/zos/agent/deploy"
	"github.com/zos-node/zos/agent/wait"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
)

// Config is what the loop needs.
type Config struct {
	Ledger        *Ledger
	World         *deploy.World
	Name          string        // of the node
	Voucher       sign.Envelope // lets it enrol, together with
	VoucherSigner sign.Signer   // its key
	Image         string        // what it booted
	// Capacity is what the node offers now; its Acted is filled in here.
	Capacity func() (ledger.Capacity, error)
	// LedgerTime hears of the ledger's time, for the clock.
	LedgerTime func(time.Time)
	Clock      clock.Clock
	Log        *slog.Logger
	Moved      func()
	// Barred says why the node takes no new work, "" when it does; nil: it does.
	Barred func(*ledger.State) string
	// Known is called with each Sync while the node is one that the ledger knows:
	// what it has to say is taken there.
	Known func() error
	Every time.Duration // between two Syncs while all is well
}

// Follower is the loop's state. Only the loop's goroutine touches it, except
// lives, which the goroutines of the lives end.
type Follower struct {
	cfg      Config
	watching bool // "following the ledger" was said since the last trouble
	trouble  trouble
	said     map[int64]string // deployment: why it was not claimed
	tryAt    map[int64]time.Time
	tries    map[int64]int
	closeAt  map[int64]time.Time // claim that nothing is left of: when its close may be tried again
	enrolAt  time.Time
	outside  *wait.Line // while the ledger does not enrol the node, and has said why
	offerAt  time.Time
	problem  map[string]string // by what is done: the last error said

	// agent is over when the agent ends without the node: lives then let go of
	// what runs.
	agent context.Context
	// following says for others what watching is for the loop.
	following atomic.Bool
	mu        sync.Mutex
	lives     map[int64]*deploy.Life // by deployment
	wg        sync.WaitGroup
	err       chan error // a life that could not even be ended
	down      bool       // the node shuts down: nothing new is begun
}

// SyncEvery is how often a node looks at the ledger.
const SyncEvery = time.Second

const (
	together   = 300 * time.Millisecond // entries of the node's own that are looked for in one Sync
	slower     = 5                      // times Every is the pause while no ledger can be used: one that is back is soon noticed
	retryFirst = 5 * time.Second
	retryMax   = 10 * time.Minute
	askAgain   = 15 * time.Second // after a refused enrolment or capacity
)

// New makes a follower; agent is the context of everything that it starts.
func New(agent context.Context, cfg Config) *Follower {
	return &Follower{agent: agent, cfg: cfg, said: map[int64]string{}, tryAt: map[int64]time.Time{}, tries: map[int64]int{}, closeAt: map[int64]time.Time{}, problem: map[string]string{},
		trouble: trouble{last: map[string]string{}}, lives: map[int64]*deploy.Life{}, err: make(chan error, 1)}
}

// Adopt takes up what an earlier agent left. It needs no ledger.
func (f *Follower) Adopt() error {
	states, err := deploy.States(f.cfg.World.RunDir)
	if err != nil {
		return err
	}
	owners := make([]int64, len(states))
	for i, s := range states {
		owners[i] = s.Deployment
	}
	if err := f.cfg.World.Content.Retain(owners...); err != nil {
		return err
	}
	for _, s := range states {
		l := deploy.Resume(f.cfg.World, s)
		f.cfg.Log.Info("found a deployment of an earlier agent", "deployment", s.Name, "running", s.Adoptable(), "phase", s.Phase)
		f.live(l, l.RunAgain)
	}
	return nil
}

// Wrong hears of a file of the store that is not what it was when it was
// verified, and sees to it that this is recorded and that nothing runs from it
// any more.
func (f *Follower) Wrong(x content.Finding) error {
	var lives []*deploy.Life
	f.mu.Lock()
	for _, owner := range x.Owners {
		if l := f.lives[owner]; l != nil {
			lives = append(lives, l)
		}
	}
	f.mu.Unlock()
	told := false
	var errs []error
	for _, l := range lives {
		mine, err := l.Condemned(x)
		told = told || mine
		errs = append(errs, err)
	}
	if !told {
		errs = append(errs, f.cfg.World.Records.Incident(-1, deploy.IncidentContent, "", x.String()))
	}
	return errors.Join(errs...)
}

// live runs a life beside the loop.
func (f *Follower) live(l *deploy.Life, run func(context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lives[l.Deployment()] = l
	f.wg.Go(func() {
		err := run(f.agent)
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.lives, l.Deployment())
		switch {
		case errors.Is(err, deploy.ErrNotClaimed):
			f.tries[l.Deployment()]++
			wait := min(retryFirst<<min(f.tries[l.Deployment()]-1, 10), retryMax)
			f.tryAt[l.Deployment()] = f.cfg.Clock.Now().Add(wait)
			f.cfg.Log.Info("deployment not claimed", "deployment", l.Deployment(), "err", err, "again", wait)
		case err != nil:
			// It is neither running nor properly ended: only a new agent,
			// which undoes it from its state file, can help.
			select {
			case f.err <- fmt.Errorf("deployment %d: %w", l.Deployment(), err):
			default:
			}
		default:
			delete(f.tries, l.Deployment())
		}
	})
}

// Run follows until ctx is over; an error means that the agent should start
// anew.
func (f *Follower) Run(ctx context.Context) error {
	pause := f.cfg.Every
	var kicked time.Time // when an entry of the node's own was last looked for
	for {
		f.cfg.Moved()
		err := f.cfg.Ledger.Sync(ctx)
		if ctx.Err() != nil {
			return nil
		}
		now := f.cfg.Clock.Now()
		if err != nil {
			f.watching = false
			f.following.Store(false)
			f.trouble.show(f.cfg.Log, now, f.cfg.Ledger.Refused(), err)
			pause = min(pause+f.cfg.Every, slower*f.cfg.Every)
		} else {
			pause = f.cfg.Every
			f.trouble.show(f.cfg.Log, now, f.cfg.Ledger.Refused(), nil)
			f.caughtUp(ctx, now)
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-f.err:
			return err
		case <-f.cfg.Ledger.Kicked():
			// The first of several entries (a claim, say) is looked for at once,
			// the others together: each look costs a checkpoint and its
			// signatures.
			select {
			case <-ctx.Done():
				return nil
			case err := <-f.err:
				return err
			case <-f.cfg.Clock.After(together - f.cfg.Clock.Now().Sub(kicked)):
			}
			kicked = f.cfg.Clock.Now()
		case <-f.cfg.Clock.After(pause):
		}
	}
}

// caughtUp does what the newest state asks for.
func (f *Follower) caughtUp(ctx context.Context, now time.Time) {
	s := f.cfg.Ledger.State()
	f.following.Store(true)
	if !f.watching {
		f.watching = true
		f.cfg.Log.Info("following the ledger", "size", s.Size(), "root", s.RootHash(), "ledgerTime", time.UnixMilli(s.TimeMs()).UTC().Format(time.RFC3339),
			"uptime", uptime())
	}
	f.cfg.LedgerTime(time.UnixMilli(s.TimeMs()))
	if !f.enrolled(ctx, s, now) {
		return
	}
	f.report()
	if f.cfg.Known != nil {
		f.problemOnce("what happened to this node cannot be recorded", f.cfg.Known())
	}
	if !f.offer(ctx, s, now) {
		return
	}
	f.mine(s, now)
	f.claim(s, now)
	f.forget(s)
}

// forget drops what is kept of claims whose story the ledger has to its end and
// that no life tells any more: a node runs for years.
func (f *Follower) forget(s *ledger.State) {
	for _, claim := range f.cfg.World.Records.Claims() {
		g := s.Claim(claim)
		if g == nil || !g.Closed() || f.told(claim) {
			continue
		}
		delete(f.closeAt, claim)
		if err := f.cfg.World.Records.Forget(claim); err != nil {
			f.problemOnce("closed claim cannot be forgotten", err)
		}
	}
}

// told says whether a life here has the claim.
func (f *Follower) told(claim int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.lives {
		if l.Claim() == claim {
			return true
		}
	}
	return false
}

// problemOnce logs an error of one kind once per change, with what more there is
// to say of it.
func (f *Follower) problemOnce(what string, err error, more ...any) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if f.problem[what] == text {
		return
	}
	f.problem[what] = text
	if err != nil {
		f.cfg.Log.Warn(what, append([]any{"err", err}, more...)...)
	}
}

// Following says whether the last look at the ledger went well.
func (f *Follower) Following() bool { return f.following.Load() }

// Wait blocks until no life is left.
func (f *Follower) Wait() { f.wg.Wait() }

// Shutdown ends all lives in order and waits until they are, and until what
// they recorded is on the ledger, or ctx is over.
func (f *Follower) Shutdown(ctx context.Context, reason string) error {
	f.mu.Lock()
	f.down = true
	n := len(f.lives)
	for _, l := range f.lives {
		l.End(&deploy.Ending{Result: "released", Reason: reason, Release: true})
	}
	f.mu.Unlock()
	f.cfg.Log.Info("ending all deployments", "count", n, "reason", reason)
	done := make(chan struct{})
	go func() { f.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("deployments have not ended: %w", ctx.Err())
	}
	return f.cfg.World.Records.Drain(ctx)
}

// StopTime is how long the guests of all that lives here may take to end in
// order, by their specs.
func (f *Follower) StopTime() (longest time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.lives {
		longest = max(longest, l.StopTime())
	}
	return longest
}

// uptime is how long the kernel has been running; 0 when it does not say.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano()).Round(time.Millisecond)
}
