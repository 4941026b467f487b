// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/beevik/ntp"
	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/wait"
)

const (
	// agreement is how far apart two time servers may be and still agree.
	agreement = 500 * time.Millisecond
	// Lifetime bounds what is believed at all: no image serves longer than
	// this after its build, so a later time is a broken clock or a lie.
	Lifetime = 15 * 365 * 24 * time.Hour
	// ledgerSpread is how far a time server may be from a ledger whose blocks
	// arrive now.
	ledgerSpread = time.Hour

	askFirst = 5 * time.Second // while no server has answered
	askLater = 64 * time.Second
	askLast  = 17 * time.Minute
	askLimit = 5 * time.Second
	large    = 10 * time.Second // slewing this takes long: said
)

// Bounds are what is known of the time without time servers.
type Bounds struct {
	Floor  time.Time // has passed for certain
	Ledger time.Time // about now, by blocks that arrive now; zero when none do
}

// Judge makes one offset of what the servers say about a clock that shows now,
// or says why none of it is believed. Nothing authenticates time servers, so
// more than half must agree, and what they agree on must fit what is known.
func Judge(now time.Time, offsets []time.Duration, b Bounds) (time.Duration, error) {
	if len(offsets) == 0 {
		return 0, errors.New("no time server has answered")
	}
	sorted := slices.Sorted(slices.Values(offsets))
	var best []time.Duration
	for i := range sorted {
		j := i
		for j < len(sorted) && sorted[j]-sorted[i] <= agreement {
			j++
		}
		if j-i > len(best) {
			best = sorted[i:j]
		}
	}
	if 2*len(best) <= len(sorted) {
		return 0, fmt.Errorf("%d time servers disagree by %s", len(sorted), sorted[len(sorted)-1]-sorted[0])
	}
	offset := best[len(best)/2]
	t := now.Add(offset)
	switch {
	case t.Before(b.Floor.Add(-slack)):
		return 0, fmt.Errorf("time servers say %s, but %s has passed", stamp(t), stamp(b.Floor))
	case t.After(b.Floor.Add(Lifetime)):
		return 0, fmt.Errorf("time servers say %s, more than %d years after %s", stamp(t), Lifetime/(365*24*time.Hour), stamp(b.Floor))
	case !b.Ledger.IsZero() && t.Sub(b.Ledger).Abs() > ledgerSpread:
		return 0, fmt.Errorf("time servers say %s, but the ledger's blocks %s", stamp(t), stamp(b.Ledger))
	}
	return offset, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Sync follows time servers. At the first answer of a boot it steps the clock,
// later it only slews, so that no time is there twice. It never goes below the
// floor, and nobody waits for it.
type Sync struct {
	Servers func() []string // as they are named now
	Bounds  func() Bounds
	Ask     func(server string) (time.Duration, error) // offset of our clock; nil: NTP
	Step    Setter
	Slew    func(time.Duration) error
	Stamp   string // path that exists once the clock was stepped in this boot
	Clock   Clock
	Log     *slog.Logger
}

// Run works until ctx is over.
func (s *Sync) Run(ctx context.Context) {
	const nobody = "no time server is named; the clock stands on what is known to have passed"
	began := s.Clock.Now()
	line := wait.Start(s.Log, began, "the time", "")
	every, said := askFirst, ""
	for ctx.Err() == nil {
		servers := s.Servers()
		err := s.once(servers)
		switch {
		case len(servers) == 0:
			// Not at once: the network has yet to name them. And not as a wait,
			// which may be for what never comes.
			now := s.Clock.Now()
			if line = wait.Start(s.Log, now, "the time", ""); said != nobody && now.Sub(began) >= askFirst {
				s.Log.Info(nobody)
				said = nobody
			}
		case err != nil && err.Error() != said:
			s.Log.Warn("time", "servers", servers, "err", err)
			said = err.Error()
		}
		if err == nil {
			every, said = min(max(2*every, askLater), askLast), ""
			line = wait.Start(s.Log, s.Clock.Now(), "the time", "")
		} else {
			every = min(2*every, askLater)
			if len(servers) > 0 {
				line.Detail("an answer of " + strings.Join(servers, ", "))
				line.Tick(s.Clock.Now())
			} else {
				every = askFirst
			}
		}
		select {
		case <-ctx.Done():
		case <-s.Clock.After(every):
		}
	}
}

func (s *Sync) once(servers []string) error {
	ask := s.Ask
	if ask == nil {
		ask = Ask
	}
	var mu sync.Mutex
	var offsets []time.Duration
	var errs []error
	var all sync.WaitGroup
	for _, server := range servers {
		all.Go(func() {
			offset, err := ask(server)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", server, err))
				return
			}
			offsets = append(offsets, offset)
		})
	}
	all.Wait()
	now := s.Clock.Now()
	offset, err := Judge(now, offsets, s.Bounds())
	if err != nil {
		return errors.Join(append([]error{err}, errs...)...)
	}
	if _, err := os.Stat(s.Stamp); err == nil {
		if offset.Abs() > large {
			s.Log.Warn("the clock is far off and is slewed, not stepped, before the next boot", "offset", offset)
		}
		return s.Slew(offset)
	}
	if err := s.Step(now.Add(offset)); err != nil {
		return err
	}
	s.Log.Info("clock set", "from", stamp(now), "to", stamp(now.Add(offset)), "source", strings.Join(servers, " "), "servers", len(offsets))
	if err := renameio.WriteFile(s.Stamp, nil, 0o600); err != nil {
		return fmt.Errorf("note that the clock was set: %w", err)
	}
	return nil
}

// Ask asks one NTP server (RFC 5905) how far our clock is off.
func Ask(server string) (time.Duration, error) {
	r, err := ntp.QueryWithOptions(server, ntp.QueryOptions{Timeout: askLimit})
	if err != nil {
		return 0, err
	}
	if err := r.Validate(); err != nil {
		return 0, err
	}
	return r.ClockOffset, nil
}

// Slew has the kernel make up for an offset little by little.
func Slew(offset time.Duration) error {
	// A clock that is off by more than a day is slewed by a day at a time.
	const most = 24 * time.Hour
	t := unix.Timex{Modes: unix.ADJ_OFFSET_SINGLESHOT, Offset: min(max(offset, -most), most).Microseconds()}
	if _, err := unix.Adjtimex(&t); err != nil {
		return fmt.Errorf("slew the clock by %s: %w", offset, err)
	}
	return nil
}

// Sane is what a boot starts its clock with: now, or the floor where now is
// before it, or so long after it that no clock could be right: a real-time
// clock with an empty battery may just as well say 2100 as 1970.
func Sane(now, floor time.Time) time.Time {
	if now.Before(floor) || !floor.IsZero() && now.After(floor.Add(Lifetime)) {
		return floor
	}
	return now
}
