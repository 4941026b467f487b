// SPDX-License-Identifier: Apache-2.0

package wait

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"
)

func TestBoard(t *testing.T) {
	b := NewBoard()
	log := slog.New(b.Handler(slog.NewTextHandler(io.Discard, nil))).With("part", "x").WithGroup("g")
	t0 := time.Unix(1000, 0)
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	expect := func(s int, want ...string) {
		t.Helper()
		if got := b.Now(at(s)); !slices.Equal(got, want) {
			t.Errorf("after %d s: %q, want %q", s, got, want)
		}
	}
	short := Start(log, t0, "an address", "DHCP on eth0")
	long := Start(log, t0, "the time", "")
	expect(0)
	short.Tick(t0)
	expect(0) // a moment is no wait
	short.Tick(at(2))
	long.Tick(at(2))
	expect(3, "an address (DHCP on eth0), for 3s", "the time, for 3s")
	short.Done()
	long.Tick(at(62)) // it is looked at once a minute
	expect(63, "the time, for 1m3s")
	expect(180, "the time, for 3m0s")
	expect(200) // nobody looks at it any more: it was dropped
	Start(slog.New(slog.DiscardHandler), t0, "nothing", "").Tick(t0)
	expect(200)
}

func TestUntilLeavesTheBoard(t *testing.T) {
	b := NewBoard()
	log := slog.New(b.Handler(slog.DiscardHandler))
	n := 0
	err := Until(context.Background(), log, "x", "y", time.Millisecond, func() (bool, error) { n++; return n == 5, nil })
	if got := b.Now(time.Now().Add(time.Second)); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
}

// TestSameWait: two parts that wait for the same thing are one line, which says for
// how long the first of them does.
func TestSameWait(t *testing.T) {
	b := NewBoard()
	log := slog.New(b.Handler(slog.DiscardHandler))
	t0 := time.Unix(1000, 0)
	first, second, other := Start(log, t0, "the drivers", "x"), Start(log, t0.Add(time.Second), "the drivers", "x"), Start(log, t0.Add(time.Second), "the drivers", "y")
	for _, l := range []*Line{first, second, other} {
		l.Tick(t0.Add(3 * time.Second))
	}
	if got, want := b.Now(t0.Add(4*time.Second)), []string{"the drivers (x), for 4s", "the drivers (y), for 3s"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	first.Done()
	if got, want := b.Now(t0.Add(4*time.Second)), []string{"the drivers (x), for 3s", "the drivers (y), for 3s"}; !slices.Equal(got, want) {
		t.Errorf("one of them is over: %q, want %q", got, want)
	}
}

// TestSlowLine: one that is looked at seldom, since what is done between two
// looks takes long on this machine, stays on the board once that is known.
func TestSlowLine(t *testing.T) {
	b := NewBoard()
	log := slog.New(b.Handler(slog.NewTextHandler(io.Discard, nil)))
	t0 := time.Unix(1000, 0)
	l := Start(log, t0, "it", "")
	l.Tick(t0)
	if got := b.Now(t0.Add(20 * time.Second)); len(got) != 0 {
		t.Errorf("nobody has looked at it for long: %q", got)
	}
	l.Tick(t0.Add(20 * time.Second))
	if got := b.Now(t0.Add(39 * time.Second)); len(got) != 1 {
		t.Errorf("it is looked at every 20 s, and after 19 s it is not there: %q", got)
	}
	if got := b.Now(t0.Add(time.Hour)); len(got) != 0 || len(b.waits) != 0 {
		t.Errorf("after an hour without a look: %q, %d are kept", got, len(b.waits))
	}
}
