// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/update/fat"
	"github.com/zos-node/zos/ledger"
)

// Config is what an updater needs of the rest of the agent.
type Config struct {
	// Open opens the boot partition; nobody else has it open until it is closed.
	Open  func() (Disk, error)
	About About  // what runs
	Name  string // of the node
	Node  string // its id, the fingerprint of its key
	// Secure says that the firmware starts signed programs only.
	Secure func() bool
	// Maker is the fingerprint of the key whose images the node's state is sealed
	// to (state.State.Maker); "" when it is not sealed.
	Maker string
	State func() *ledger.State
	NowMs func() int64 // ledger time
	// Fetch brings a verified file and says where it is; it is gone after done.
	Fetch func(ctx context.Context, t *ledger.Target) (path string, done func(), err error)
	// Record puts a word for the ledger into the queue, Drain waits for the queue.
	Record func(ledger.Update) error
	Drain  func(context.Context) error
	// Healthy says what is missing for a node that works.
	Healthy func() error
	// Blessed tells init that the trial is over.
	Blessed func() error
	// Restart ends the guests in order and starts the machine again.
	Restart func(ctx context.Context, reason string) error
	Clock   clock.Clock
	Log     *slog.Logger
}

// Disk is an open boot partition.
type Disk interface {
	fat.Device
	Close() error
}

const (
	// Steady is how long a trial has to be healthy without a break.
	Steady = 30 * time.Second
	// TrialTime is how long a trial may take to become so. init's own limit,
	// for an agent that cannot say anything, is longer (init/trial).
	TrialTime = 10 * time.Minute

	every      = 2 * time.Second
	tellAgain  = time.Minute
	drainTime  = 30 * time.Second
	retryFirst = 30 * time.Second
	retryMax   = 15 * time.Minute
)

// ErrUnfit says that an image will not do, whoever sends it.
var ErrUnfit = errors.New("the release does not fit this node")

// Updater follows rollouts.
type Updater struct {
	cfg   Config
	mem   memory
	said  string
	told  time.Time // when the memory's word was queued last
	retry time.Duration
	next  time.Time // no attempt before
	floor string    // below which nothing is kept, as of the last look
}

// New makes an updater.
func New(cfg Config) *Updater { return &Updater{cfg: cfg, mem: empty()} }

// Run takes up what was left, and then follows until ctx is over. It returns at
// once when the node was not started from a boot partition of its own. What
// fails is said and tried again: a boot partition that is broken must not take
// the guests with it, and a trial that cannot be blessed is lost to init.
func (u *Updater) Run(ctx context.Context) {
	for ctx.Err() == nil {
		err := u.begin(ctx)
		if errors.Is(err, ErrNoPartition) {
			u.cfg.Log.Info("no updates from here: another version comes with the next boot", "err", err)
			return
		}
		if err == nil {
			break
		}
		u.say("boot partition: " + err.Error())
		u.pause(ctx)
	}
	for ctx.Err() == nil {
		if err := u.look(ctx); err != nil {
			u.say("update: " + err.Error())
		}
		u.pause(ctx)
	}
}

func (u *Updater) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-u.cfg.Clock.After(every):
	}
}

// begin does what the last update left to do.
func (u *Updater) begin(ctx context.Context) error {
	todo, err := u.resume()
	if err != nil {
		return err
	}
	switch todo {
	case trial:
		u.cfg.Log.Info("this image is on trial", "version", u.cfg.About.Version, "limit", TrialTime)
		return u.prove(ctx)
	case again: // the agent ended between the writing and the restart
		if err := u.whole(ctx); err != nil {
			return err
		}
		return u.restart(ctx, "the trial of "+u.mem.Version+" has not begun")
	case noted:
		u.cfg.Log.Info("outcome of the last update", "version", u.mem.Version, "result", u.mem.State, "reason", u.mem.Reason)
	}
	return nil
}

// say logs what is new.
func (u *Updater) say(what string) {
	if u.said != what {
		u.said = what
		u.cfg.Log.Info(what)
	}
}

// with opens the boot partition for a moment, whole.
func (u *Updater) with(do func(*fat.Volume) error) error {
	d, err := u.cfg.Open()
	if err != nil {
		return err
	}
	v, err := fat.Open(d)
	if err == nil {
		var did []string
		if did, err = v.Repair(ours); len(did) > 0 {
			u.cfg.Log.Warn("the boot partition was repaired after a power cut", "did", did)
		}
	}
	if err == nil {
		err = do(v)
	}
	return errors.Join(err, d.Close())
}

// look does what the newest state of the ledger asks for.
func (u *Updater) look(ctx context.Context) error {
	s := u.cfg.State()
	if s == nil || s.Root() == nil {
		return nil
	}
	node := s.Node(u.cfg.Node)
	if node == nil {
		return nil // nobody would take its word
	}
	if err := u.tell(s); err != nil {
		return err
	}
	if floor := s.Floor(); floor != u.floor {
		if err := u.with(func(v *fat.Volume) error { return u.drop(v, floor) }); err != nil {
			return err
		}
		u.floor = floor
	}
	if _, over := results[u.mem.State]; over && !u.mem.Told || u.cfg.Clock.Now().Before(u.next) {
		return nil
	}
	if err := u.cfg.Healthy(); err != nil {
		return nil // its memory is not divided yet, or the state is an old one
	}
	target, why := s.NextUpdate(ledger.NodeFacts{Name: u.cfg.Name, Labels: node.Labels, Board: u.cfg.About.Board, Version: u.cfg.About.Version, Tried: u.mem.Tried}, u.cfg.NowMs())
	if target == nil {
		u.say("no update: " + why)
		return nil
	}
	err := u.take(ctx, target)
	if err != nil {
		u.retry = min(max(2*u.retry, retryFirst), retryMax)
		u.next = u.cfg.Clock.Now().Add(u.retry)
		return fmt.Errorf("%s not put in place, again in %s: %w", target.Version, u.retry, err)
	}
	return nil
}

// results of the ledger for states of the memory.
var results = map[string]string{stateBlessed: ledger.UpdateBlessed, stateBack: ledger.UpdateRolledBack, stateFailed: ledger.UpdateFailed}

// tell brings the outcome onto the ledger, and goes on until it stands there.
func (u *Updater) tell(s *ledger.State) error {
	result, over := results[u.mem.State]
	if u.mem.Told || !over {
		return nil
	}
	known := false
	for _, r := range s.Rollouts() {
		known = known || r.ID == u.mem.Rollout && r.Rollout.Version == u.mem.Version
	}
	if last := s.Updated(u.mem.Rollout, u.cfg.Name); !known || last != nil && last.Result == result {
		u.mem.Told = true
		return u.with(func(v *fat.Volume) error { return u.mem.save(v) })
	}
	if now := u.cfg.Clock.Now(); now.Sub(u.told) >= tellAgain {
		u.told = now
		return u.record(result)
	}
	return nil
}

func (u *Updater) record(result string) error {
	return u.cfg.Record(ledger.Update{Rollout: u.mem.Rollout, Version: u.mem.Version, Result: result, Running: u.cfg.About.Version, Reason: u.mem.Reason})
}

// take fetches a release, puts it in place, and starts the machine into it.
func (u *Updater) take(ctx context.Context, t *ledger.Target) error {
	u.cfg.Log.Info("update", "rollout", t.Rollout, "from", u.cfg.About.Version, "to", t.Version, "bytes", t.Image.Size)
	u.mem = memory{Rollout: t.Rollout, Version: t.Version, Told: true, Tried: u.mem.Tried}
	err := u.place(ctx, t)
	if errors.Is(err, ErrNoRoom) || errors.Is(err, ErrUnfit) {
		u.mem.failed(stateFailed, err.Error())
		u.cfg.Log.Error("update failed", "to", t.Version, "err", err)
		return u.with(func(v *fat.Volume) error { return u.mem.save(v) })
	}
	if err != nil {
		return err
	}
	u.mem.Reason = "written and read back; the machine starts again"
	if err := u.record(ledger.UpdateTrying); err != nil {
		return err
	}
	if err := u.heard(ctx); err != nil {
		return err
	}
	return u.restart(ctx, "update to "+t.Version)
}

// whole waits until the node lacks nothing. What an earlier agent left running has
// been taken up then: it can be ended in order, and the ledger hears of it.
func (u *Updater) whole(ctx context.Context) error {
	for ctx.Err() == nil {
		lacks := u.cfg.Healthy()
		if lacks == nil {
			return nil
		}
		u.say("the update waits with its restart: " + lacks.Error())
		u.pause(ctx)
	}
	return ctx.Err()
}

// heard waits for the ledger to have the word of the trial. As long as no ledger
// is followed the machine stays up: nobody could take over what runs on it, nor
// could it itself afterwards.
func (u *Updater) heard(ctx context.Context) error {
	drain, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	if err := u.cfg.Drain(drain); err != nil {
		u.cfg.Log.Warn("the ledger has not heard of the trial yet", "err", err)
	}
	return u.whole(ctx)
}

func (u *Updater) place(ctx context.Context, t *ledger.Target) error {
	// Before anything is fetched for which something else would have to go.
	if err := u.with(func(v *fat.Volume) error { return roomFor(v, u.cfg.About.Version, t.Image.Size) }); err != nil {
		return err
	}
	path, done, err := u.cfg.Fetch(ctx, t)
	if err != nil {
		return err
	}
	defer done()
	if err := u.fits(path, t); err != nil {
		return err
	}
	return u.with(func(v *fat.Volume) (err error) {
		u.mem, err = install(v, u.cfg.About.Version, image{t.Version, t.Image.Digest, t.Image.Size, path}, u.mem)
		return err
	})
}

// fits looks at a verified file before anything is changed for it.
func (u *Updater) fits(path string, t *ledger.Target) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return fmt.Errorf("image: %w", err)
	case info.Size() != t.Image.Size:
		return fmt.Errorf("%w: the image has %d bytes, released were %d", ErrUnfit, info.Size(), t.Image.Size)
	}
	if err := inspect(f, t.Version, u.cfg.About.Board, u.cfg.Secure(), u.cfg.Maker); err != nil {
		return fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	return nil
}

// Below says why a node that runs less than the floor takes no work, "" when it
// may.
func Below(s *ledger.State, version string) string {
	if floor := s.Floor(); floor != "" && ledger.CompareVersions(version, floor) < 0 {
		return fmt.Sprintf("this node runs %s, and the ledger's floor is %s: it waits for its update", version, floor)
	}
	return ""
}
