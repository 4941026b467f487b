// SPDX-License-Identifier: Apache-2.0

package wait

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Board knows what is waited for now, for the node's console. A Line finds it
// through its logger, so that nobody has to hand it on.
type Board struct {
	mu    sync.Mutex
	waits map[*Line]ticks
}

// ticks are when a line was last looked at, and how far that was from the time
// before: a line that is not looked at any more is over.
type ticks struct {
	text      string
	start, at time.Time
	gap       time.Duration
}

// grace is how much longer than twice the usual a line may stay quiet.
const grace = 5 * time.Second

// forget is when a line that nobody looks at any more is dropped.
const forget = 10 * time.Minute

// NewBoard makes an empty one.
func NewBoard() *Board { return &Board{waits: map[*Line]ticks{}} }

// Handler makes loggers whose waits stand on the board.
func (b *Board) Handler(h slog.Handler) slog.Handler { return boarded{h, b} }

// Elapsed stands between what is waited for and how long already.
const Elapsed = ", for "

// Now lists the waits that have lasted for more than a moment, the longest first.
// What several parts wait for is one wait: the longest of theirs.
func (b *Board) Now(now time.Time) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []ticks
	for l, t := range b.waits {
		if quiet := now.Sub(t.at); quiet > 2*t.gap+grace {
			// It may only be slow: when it is looked at again, its gap is known.
			if quiet > forget {
				delete(b.waits, l)
			}
			continue
		}
		if now.Sub(t.start) >= firstLine {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b ticks) int {
		if c := a.start.Compare(b.start); c != 0 {
			return c
		}
		return strings.Compare(a.text, b.text)
	})
	texts, named := []string{}, map[string]bool{}
	for _, t := range all {
		if named[t.text] {
			continue
		}
		named[t.text] = true
		texts = append(texts, t.text+Elapsed+now.Sub(t.start).Round(time.Second).String())
	}
	return texts
}

func (b *Board) note(l *Line, now time.Time) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t, known := b.waits[l]
	if known {
		t.gap = now.Sub(t.at)
	}
	t.text, t.start, t.at = l.what, l.start, now
	if l.detail != "" {
		t.text += " (" + l.detail + ")"
	}
	b.waits[l] = t
}

func (b *Board) drop(l *Line) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.waits, l)
}

// boarded is a handler that knows the board.
type boarded struct {
	slog.Handler
	board *Board
}

func (h boarded) WithAttrs(a []slog.Attr) slog.Handler {
	return boarded{h.Handler.WithAttrs(a), h.board}
}

func (h boarded) WithGroup(name string) slog.Handler {
	return boarded{h.Handler.WithGroup(name), h.board}
}

func (h boarded) Handle(ctx context.Context, r slog.Record) error { return h.Handler.Handle(ctx, r) }

func boardOf(log *slog.Logger) *Board {
	if h, ok := log.Handler().(boarded); ok {
		return h.board
	}
	return nil
}
