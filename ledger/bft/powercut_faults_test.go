// SPDX-License-Identifier: Apache-2.0

//go:build faults

package bft

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest/powercut"
)

// everyFsync is the next one.
func everyFsync(n int) int { return n + 1 }

// TestFaultsOfPower cuts the power of a ledger of one at every fsync of its
// start and of four entries, on two kinds of file system. It runs beside
// TestFaults, which mostly waits.
func TestFaultsOfPower(t *testing.T) {
	t.Parallel()
	row := table(t)
	for _, kind := range []string{"", "loose"} {
		name := "power cut at every fsync of a single validator"
		if kind != "" {
			name += ", names in no order"
		}
		t.Run(name, func(t *testing.T) {
			sum, lost := alone(t, kind, everyFsync, 4)
			if lost != nil {
				t.Fatal(lost)
			}
			row(name, sum.String(), fmt.Sprintf("it starts again each time; %d receipts hold", sum.receipts))
		})
	}
}

// TestFaultsOfPowerInFour does the same to one of four, while the others go on.
func TestFaultsOfPowerInFour(t *testing.T) {
	t.Parallel()
	row := table(t)
	c := newCluster(t, 4)
	c.put(3, c.entry())
	c.srv[3].kill(t)
	p := onPower(t, c.dirs[3], "")
	submit := func(ctx context.Context, url string, entry []byte) error {
		r, err := client(t, c.dirs[0], url).Submit(ctx, entry)
		var refused *ledger.Refused
		if errors.As(err, &refused) {
			t.Errorf("refused: %v", err)
		}
		if err == nil {
			err = c.got.add(r, entry)
		}
		return err
	}
	// The others are busy all the time.
	ctx, stop := context.WithCancel(t.Context())
	var done atomic.Int64
	busy := make(chan struct{})
	go func() {
		defer close(busy)
		for i := 0; ctx.Err() == nil; i++ {
			for entry := c.entry(); ctx.Err() == nil && submit(ctx, c.srv[i%3].url, entry) != nil; {
			}
			done.Add(1)
		}
	}()
	defer func() { stop(); <-busy }()
	var sum cuts
	entry := c.entry()
	mine := func(ctx context.Context, url string) error {
		err := submit(ctx, url, entry)
		if err == nil {
			entry = c.entry()
		}
		return err
	}
	look := func(url string) {
		// One reader sees both: a fork would show.
		one := client(t, c.dirs[0], c.srv[0].url, url)
		if err := one.Sync(t.Context()); errors.Is(err, ledger.ErrForged) || errors.Is(err, ledger.ErrFork) {
			t.Errorf("after a cut: %v", err)
		}
	}
	for n := 1; ; n++ {
		loss := powercut.Loss(sum.turns % 3)
		_, cut, err := p.turn(powerOn{At: n, Loss: loss, Seed: uint64(n)}, 3, look, mine)
		if err != nil {
			t.Fatal(err)
		}
		if cut == nil {
			break
		}
		sum.add(cut, loss)
		if n%20 == 0 {
			t.Logf("%s; %d entries of the others", sum, done.Load())
		}
	}
	stop()
	<-busy
	p.on(powerOn{})
	s := p.hear()
	if s.Ended {
		t.Fatalf("it does not start again: %s", s.Said)
	}
	c.srv[3] = &server{url: s.URL}
	c.put(3, c.entry())
	size := c.same()
	p.off()
	row("power cut at every fsync of one of four", sum.String(),
		fmt.Sprintf("it starts again each time; %d entries of the others meanwhile; %d votes of it, none in two ways; %d receipts hold in a log of %d", done.Load(), p.votes, len(c.got.entries), size))
}
