// SPDX-License-Identifier: Apache-2.0

// Package wait makes waiting visible: no part of the agent waits without a
// line on the console that says what for and for how long already.
package wait

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Line prints at most one line per due time, with growing distance, so that a
// node that waits for hours does not fill its console.
type Line struct {
	log    *slog.Logger
	board  *Board
	what   string
	detail string
	start  time.Time
	due    time.Time
	step   time.Duration
}

const (
	firstLine = time.Second
	lastStep  = time.Minute
)

// Start begins a wait: what is the thing waited for, detail says more about it.
func Start(log *slog.Logger, now time.Time, what, detail string) *Line {
	return &Line{log: log, board: boardOf(log), what: what, detail: detail, start: now, due: now.Add(firstLine), step: firstLine}
}

// Done says that the wait is over. A line that is dropped without it leaves
// the board a little later.
func (l *Line) Done() { l.board.drop(l) }

// Detail changes what the line says about the thing waited for.
func (l *Line) Detail(s string) { l.detail = s }

// Tick prints the line when it is due.
func (l *Line) Tick(now time.Time) {
	l.board.note(l, now)
	if now.Before(l.due) {
		return
	}
	l.Print(now)
	l.step = min(2*l.step, lastStep)
	l.due = now.Add(l.step)
}

// Print prints the line now.
func (l *Line) Print(now time.Time) {
	l.log.Info("waiting for "+l.what, "for", l.detail, "elapsed", now.Sub(l.start).Round(time.Millisecond))
}

// Until polls cond every so often until it holds, fails, or ctx is over.
func Until(ctx context.Context, log *slog.Logger, what, detail string, every time.Duration, cond func() (bool, error)) error {
	line := Start(log, time.Now(), what, detail)
	defer line.Done()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ok, err := cond()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s (%s): %w", what, detail, ctx.Err())
		case now := <-tick.C:
			line.Tick(now)
		}
	}
}
