// SPDX-License-Identifier: Apache-2.0

//go:build faults

package bft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest/powercut"
)

// everyFsync is the next one.
func everyFsync(n int) int { return n + 1 }

// powerCuts cuts the power of validator 4, whose folder lies on a disk that
// forgets what was not fsynced, at every fsync of its start and of three
// entries, while the other three go on.
func (c *cluster) powerCuts(run scenario) {
	run("power cut at every fsync of one of four", func(t *testing.T) (string, string) {
		c.srv[3].kill(t)
		p := onPower(t, c.dirs[3], "")
		root := c.dirs[0]
		submit := func(ctx context.Context, url string, entry []byte) error {
			r, err := client(t, root, url).Submit(ctx, entry)
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
		done, busy := 0, make(chan struct{})
		go func() {
			defer close(busy)
			for i := 0; ctx.Err() == nil; i++ {
				for entry := c.entry(); ctx.Err() == nil && submit(ctx, c.srv[i%3].url, entry) != nil; {
				}
				done++
			}
		}()
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
			// One reader sees them all: a fork would show.
			one := client(t, root, c.srv[0].url, url)
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
		}
		stop()
		<-busy
		p.on(powerOn{Save: c.dirs[3] + "-after"})
		p.hear()
		for _, err := range []error{os.Remove(c.dirs[3]), os.Rename(c.dirs[3]+"-after", c.dirs[3])} {
			if err != nil {
				t.Fatal(err)
			}
		}
		c.srv[3] = startBad(outer{t, c}, c.dirs[3], "", "")
		c.put(3, c.entry())
		return sum.String(), fmt.Sprintf("it starts again each time; %d entries of the others meanwhile, %d votes of it, none in two ways", done, p.votes)
	})
}

// powerCutsAlone does the same to a ledger of one, on two kinds of file system.
func powerCutsAlone(t *testing.T, row func(fault, injected, came string)) {
	for _, kind := range []string{"", "loose"} {
		name := "power cut at every fsync of a single validator"
		if kind != "" {
			name += ", a file system without an order"
		}
		t.Run(name, func(t *testing.T) {
			sum, lost := alone(t, kind, everyFsync, 4)
			if lost != nil {
				t.Fatal(lost)
			}
			row(name, sum.String(), "it starts again each time; "+strconv.Itoa(sum.receipts)+" receipts hold")
		})
	}
}
