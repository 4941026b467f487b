// SPDX-License-Identifier: Apache-2.0

//go:build faults

package bft

import (
	"context"
	"errors"
	"fmt"
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
			skipRow(t, row, name)
			sum, lost := alone(t, kind, everyFsync, 4)
			if lost != nil {
				t.Fatal(lost)
			}
			row(name, sum.String(), fmt.Sprintf("it starts again each time; %d receipts hold", sum.receipts))
		})
	}
}

// TestFaultsOfPowerInFour does the same to one of four.
// The others go on without it.
func TestFaultsOfPowerInFour(t *testing.T) {
	t.Parallel()
	row := table(t)
	const name = "power cut at every fsync of one of four"
	skipRow(t, row, name)
	c := newCluster(t, 4)
	c.put(3, c.entry())
	c.srv[3].kill(t)
	p := onPower(t, c.dirs[3], "")
	entry := c.entry()
	submit := func(ctx context.Context, url string) error {
		r, err := client(t, c.dirs[0], url).Submit(ctx, entry)
		var refused *ledger.Refused
		if errors.As(err, &refused) {
			t.Errorf("refused: %v", err)
		}
		if err == nil {
			err = c.got.add(r, entry)
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
	// back lets it run until it has what the others have.
	back := func() {
		p.on(powerOn{})
		s := p.hear()
		if s.Ended {
			t.Fatalf("it does not start again: %s", s.Said)
		}
		look(s.URL)
		c.srv[3] = &server{url: s.URL}
		c.put(3, c.entry())
	}
	var sum cuts
	others := 0
	for n := 1; ; n++ {
		loss := powercut.Loss(sum.turns % 3)
		_, cut, err := p.turn(powerOn{At: n, Loss: loss, Seed: uint64(n)}, 3, look, submit)
		if err != nil {
			t.Fatal(err)
		}
		if cut == nil {
			break
		}
		sum.add(cut, loss)
		c.put(others%3, c.entry())
		others++
		if sum.turns%4 == 0 { // else it never catches up: each turn ends it early
			back()
			p.off()
			t.Logf("%s; %d entries of the others", sum, others)
		}
	}
	back()
	size := c.same()
	p.off()
	row(name, sum.String(),
		fmt.Sprintf("it starts again each time; %d entries of the others while it is away; %d votes of it, none in two ways; %d receipts hold in a log of %d", others, p.votes, len(c.got.entries), size))
}
