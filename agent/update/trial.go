// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zos-node/zos/agent/update/fat"
)

// resume looks what became of the last update.
func (u *Updater) resume() (todo deed, err error) {
	err = u.with(func(v *fat.Volume) error {
		var all []file
		var before string
		if all, before, todo, err = u.judged(v); err != nil {
			return err
		}
		if todo == again {
			if err := spend(v, named(all, u.mem.Version)); err != nil {
				return err
			}
		}
		if u.mem.State+u.mem.Reason != before || todo == noted {
			if err := u.mem.save(v); err != nil {
				return err
			}
		}
		return u.drop(v, u.floor)
	})
	return todo, err
}

// judged reads what is remembered of the last update, and what became of it since.
// before is what was remembered of its end; nothing is written.
func (u *Updater) judged(v *fat.Volume) (all []file, before string, todo deed, err error) {
	m, err := load(v)
	if err != nil {
		u.cfg.Log.Warn("what was remembered of updates is lost", "err", err)
	}
	if all, err = slots(v); err != nil {
		return nil, "", nothing, err
	}
	before = m.State + m.Reason
	u.mem, todo = judge(all, m, u.cfg.About.Version)
	return all, before, todo, nil
}

// spend takes a try from an image that the loader did not start although it
// should have, before the machine starts again for it: a loader that never does
// (its firmware starts another disk) would have it start for ever.
func spend(v *fat.Volume, next *file) error {
	left := next.slot
	left.Left--
	return v.Rename(next.Path, left.path())
}

// drop removes images that nothing may fall back to.
func (u *Updater) drop(v *fat.Volume, floor string) error {
	all, err := slots(v)
	if err != nil {
		return err
	}
	for _, s := range unsafe(all, u.mem, u.cfg.About.Version, floor) {
		u.cfg.Log.Info("image removed", "file", s.Path, "floor", floor)
		if err := v.Remove(s.Path); err != nil {
			return err
		}
	}
	return nil
}

// prove waits for health and blesses, or goes back.
func (u *Updater) prove(ctx context.Context) error {
	start := u.cfg.Clock.Now()
	since, noted := time.Time{}, start
	for {
		now := u.cfg.Clock.Now()
		err := u.cfg.Healthy()
		switch {
		case err != nil && now.Sub(start) >= TrialTime:
			return u.giveUp(ctx, fmt.Sprintf("not healthy after %s: %s", TrialTime, err))
		case err != nil:
			since = time.Time{}
			// For the image before, should this one not live to say more.
			if text := err.Error(); text != u.mem.Reason && now.Sub(noted) >= Steady {
				u.mem.Reason, noted = text, now
				if err := u.with(func(v *fat.Volume) error { return u.mem.save(v) }); err != nil {
					return err
				}
			}
		case since.IsZero():
			since = now
		case now.Sub(since) >= Steady:
			return u.bless(now.Sub(start))
		}
		if u.pause(ctx); ctx.Err() != nil {
			return nil
		}
	}
}

// bless makes the running image what the node starts from now on.
func (u *Updater) bless(took time.Duration) error {
	u.mem.State, u.mem.Reason, u.mem.Told = stateBlessed, fmt.Sprintf("healthy for %s, %s after the agent's start", Steady, took.Round(time.Second)), u.mem.Rollout < 0
	err := u.with(func(v *fat.Volume) error {
		all, err := slots(v)
		if err != nil {
			return err
		}
		mine := named(all, u.cfg.About.Version)
		if mine == nil {
			return fmt.Errorf("the running image %s is gone from the boot partition", u.cfg.About.Version)
		}
		if mine.Counted {
			if err := v.Rename(mine.Path, slot{Version: mine.Version}.path()); err != nil {
				return err
			}
		}
		return u.mem.save(v)
	})
	if err != nil {
		return err
	}
	u.cfg.Log.Info("this image is blessed", "version", u.cfg.About.Version, "took", took.Round(time.Second))
	return u.cfg.Blessed()
}

// giveUp takes the last tries away: the loader goes back at the next start.
func (u *Updater) giveUp(ctx context.Context, why string) error {
	u.cfg.Log.Error("this image is given up", "version", u.cfg.About.Version, "err", why)
	u.mem.Reason = why
	err := u.with(func(v *fat.Volume) error {
		if err := u.mem.save(v); err != nil {
			return err
		}
		all, err := slots(v)
		if err != nil {
			return err
		}
		mine := named(all, u.cfg.About.Version)
		if mine == nil || !mine.Counted || mine.Left == 0 {
			return nil
		}
		return v.Rename(mine.Path, slot{Version: mine.Version, Counted: true, Done: max(mine.Done, 1)}.path())
	})
	return errors.Join(err, u.restart(ctx, "trial of "+u.cfg.About.Version+" given up: "+why))
}

// Locked is for a start whose state does not open: nothing of the node is there,
// and only a person could end the wait. A trial is given up at once then, with the
// reason for the image before. Where this is no trial it returns and has changed
// nothing. Of the Config it needs Open, About, Restart, Clock and Log.
func (u *Updater) Locked(ctx context.Context, why error) {
	for ctx.Err() == nil {
		err := u.locked(ctx, why)
		if err == nil || errors.Is(err, ErrNoPartition) {
			return
		}
		// The boot partition is looked through for a recovery key at times.
		u.say("boot partition: " + err.Error())
		u.pause(ctx)
	}
}

func (u *Updater) locked(ctx context.Context, why error) error {
	todo := nothing
	err := u.with(func(v *fat.Volume) (err error) {
		_, _, todo, err = u.judged(v)
		return err
	})
	if err != nil || todo != trial {
		return err
	}
	return u.giveUp(ctx, why.Error())
}

// restart does not return before the machine is on its way down.
func (u *Updater) restart(ctx context.Context, why string) error {
	u.cfg.Log.Info("the machine starts again", "reason", why)
	if err := u.cfg.Restart(ctx, why); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
