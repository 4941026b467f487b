// SPDX-License-Identifier: Apache-2.0

// Package uplink gives the node its way to the outside and keeps it.
//
// One direction: the seed's configurations and what is observed of each link
// (Facts: carrier, leases, advertisements, tests) go into Decide, a pure
// function; what it says should stand (Plan) is put in place by apply and
// shown to the rest of the agent. The facts come from the clients in dhcp4,
// dhcp6 and ra, which know nothing of each other.
//
// Several configurations are tried in their order, and each is tested against
// the ledger before it counts: one that gives addresses but no ledger never
// takes the place of one that works. Nothing here holds up the rest of the
// agent; what is waited for is said, and for how long already.
package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"time"

	"github.com/google/renameio/v2"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/seed"
)

// Up is the uplink as it stands; Link is "" while there is none.
type Up struct {
	Link      string
	Addresses []netip.Prefix // that can be used already
	NTP       []string       // time servers that the network named, or the seed
	Proven    bool           // the ledger was reached by it
}

// Uplink keeps the node's way to the outside.
type Uplink struct {
	Configs []seed.Network // in order of preference, at least one
	Host    string         // name for the DHCP server
	Resolv  string         // path of resolv.conf
	Good    string         // path where the configuration that worked last is kept; "" keeps none
	Clock   clock.Clock
	Log     *slog.Logger
	Changed func(Up)
	Moved   func()
	// Reach tests whether the ledger is reached. It must be quick to give up
	// when its context is over. nil: any address will do.
	Reach func(context.Context) error
	// Trial is how long a configuration may take to reach the ledger when
	// there is another one to try; 0 is a minute.
	Trial time.Duration
	// Hold is how long a link may give addresses but no ledger before another
	// one is tried, at first; 0 is ten seconds.
	Hold time.Duration
	// Drivers loads those of the kernel that a configuration needs: the rest of
	// the machine's may still be loading. nil: they are there.
	Drivers func(names []string) error
}

const (
	defaultTrial = time.Minute
	// settled is how long a configuration stays that could not reach the
	// ledger, but no other could either; twice as long each time, up to the
	// last. The ledger may be down: guests go on.
	settledFirst = 5 * time.Minute
	settledLast  = time.Hour
	againFirst   = time.Second
	againLast    = 30 * time.Second
)

// outcome is how the run of one configuration ended.
type outcome struct {
	addressed bool // it had an address
	proven    bool // it reached the ledger at some time
}

// Run works until ctx is over. Whatever goes wrong is logged and tried again:
// without an uplink the node cannot do anything else.
func (u *Uplink) Run(ctx context.Context) {
	trial := u.Trial
	if trial == 0 {
		trial = defaultTrial
	}
	settled := settledFirst
	for ctx.Err() == nil {
		configs := u.candidates()
		best := 0
		var all []outcome
		for i := range configs {
			limit := trial
			if len(configs) == 1 {
				limit = 0
			}
			got := u.one(ctx, configs, i, limit)
			if ctx.Err() != nil {
				return
			}
			all = append(all, got)
			if got.proven {
				break // it worked, and works no more: begin with the first again
			}
			if got.addressed && !all[best].addressed {
				best = i
			}
		}
		if all[len(all)-1].proven || len(configs) == 1 {
			settled = settledFirst
			continue
		}
		u.Log.Warn("no network configuration reaches the ledger", "tried", len(configs), "stays", best, "again", settled)
		u.one(ctx, configs, best, settled)
		settled = min(2*settled, settledLast)
	}
}

// candidates are the seed's configurations and, behind them, the one that
// worked last: should none of a new seed's work, the node falls back to it.
func (u *Uplink) candidates() []seed.Network {
	out := append([]seed.Network(nil), u.Configs...)
	last, err := u.lastGood()
	if err != nil {
		u.Log.Warn("last network configuration", "err", err)
	}
	if last == nil {
		return out
	}
	for _, c := range out {
		if reflect.DeepEqual(c, *last) {
			return out
		}
	}
	return append(out, *last)
}

func (u *Uplink) lastGood() (*seed.Network, error) {
	if u.Good == "" {
		return nil, nil
	}
	b, err := os.ReadFile(u.Good)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return seed.DecodeNetwork(b)
}

// keep notes a configuration that works.
func (u *Uplink) keep(c *seed.Network) {
	if u.Good == "" {
		return
	}
	b, err := json.Marshal(c)
	if err == nil {
		err = renameio.WriteFile(u.Good, b, 0o600)
	}
	if err != nil {
		u.Log.Warn("network configuration cannot be kept", "err", err)
	}
}

// one runs a configuration until it does not work any more or, not having
// reached the ledger, its limit is over; 0 is no limit.
func (u *Uplink) one(ctx context.Context, configs []seed.Network, i int, limit time.Duration) outcome {
	if len(configs) > 1 {
		u.Log.Info("network configuration", "number", i, "of", len(configs), "limit", limit)
	}
	after := againFirst
	s := newSession(u, &configs[i], limit)
	for {
		started := u.Clock.Now()
		err := s.run(ctx)
		if ctx.Err() != nil || errors.Is(err, errLimit) {
			if errors.Is(err, errLimit) && ctx.Err() == nil {
				u.Log.Warn("network configuration given up", "number", i, "err", err)
			}
			return s.outcome
		}
		u.Log.Error("uplink", "err", err, "again", after)
		if u.Clock.Now().Sub(started) > againLast {
			after = againFirst
		}
		select {
		case <-ctx.Done():
		case <-u.Clock.After(after):
		}
		u.Moved()
		if s.over(u.Clock.Now()) {
			return s.outcome
		}
		after = min(2*after, againLast)
	}
}

var errLimit = errors.New("its time is over")

func limitError(what string, limit time.Duration) error {
	return fmt.Errorf("%s within %s: %w", what, limit, errLimit)
}
