// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
)

type signer = sign.Signer

// one is the single validator of most tests.
var one = ledger.Validator{Name: "one"}

var lease = ledger.LeasePolicy{WindowMs: 1000, LeaseMs: 600_000, GraceMs: 1000}

// kept are the receipts that clients hold.
type kept struct {
	sync.Mutex
	entries map[int64][]byte
	enough  chan struct{}
	want    int
}

func (k *kept) add(r ledger.Receipt, entry []byte) error {
	k.Lock()
	defer k.Unlock()
	if old, ok := k.entries[r.Index]; ok && !bytes.Equal(old, entry) {
		return fmt.Errorf("two entries have a receipt for index %d", r.Index)
	}
	k.entries[r.Index] = entry
	if k.want--; k.want == 0 {
		close(k.enough)
	}
	return nil
}

// load submits entries until the server is gone. What had no answer is
// submitted again by the next load: an index that it gets must be the one it
// has.
func load(ctx context.Context, c *ledger.Client, todo chan []byte, k *kept) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case entry := <-todo:
			r, err := c.Submit(ctx, entry)
			var refused *ledger.Refused
			switch {
			case errors.As(err, &refused):
				return fmt.Errorf("refused: %w", err)
			case err != nil:
				todo <- entry
				return nil
			}
			if err := k.add(r, entry); err != nil {
				return err
			}
		}
	}
}

// verify starts the server again and compares the log with all receipts.
func verify(t *testing.T, dir string, k *kept) {
	t.Helper()
	s := start(t, dir, "")
	defer s.kill(t)
	c := client(t, dir, s.url)
	if err := c.Sync(t.Context()); err != nil {
		t.Fatalf("the log does not verify: %v\n%s", err, s.err)
	}
	for index, entry := range k.entries {
		if got, err := c.Entries().Get(t.Context(), index); err != nil || !bytes.Equal(got, entry) {
			t.Errorf("entry %d had a receipt and is not there: %v", index, err)
		}
	}
	seen := map[string]bool{}
	for _, d := range c.State().Deployments() {
		if seen[d.Name] {
			t.Errorf("%s is on the ledger twice", d.Name)
		}
		seen[d.Name] = true
	}
}

// TestKill9 kills the server under load, again and again.
func TestKill9(t *testing.T) {
	l, dir := fresh(t, lease)
	todo := make(chan []byte, 2000)
	for i := range 600 {
		todo <- l.Register(fmt.Sprintf("d%d", i), 1, nil)
	}
	k := &kept{entries: map[int64][]byte{}}
	for round := range 5 {
		s := start(t, dir, "")
		k.want, k.enough = 1+rand.IntN(40), make(chan struct{})
		c := client(t, dir, s.url)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if err := load(t.Context(), c, todo, k); err != nil {
					t.Error(err)
				}
			})
		}
		<-k.enough // the others are at any point of a submit now
		s.kill(t)
		all.Wait()
		t.Logf("round %d: killed with %d receipts in all", round, len(k.entries))
	}
	verify(t, dir, k)
}

// TestCrashPoints ends the process between any two writes of a commit.
func TestCrashPoints(t *testing.T) {
	l, dir := fresh(t, lease)
	n := 0
	k := &kept{entries: map[int64][]byte{}, want: -1}
	for _, point := range []string{"tiles:2", "file:2", "file:3", "file:5", "checkpoint:1", "checkpoint:3", "published:1", "published:2"} {
		t.Run(point, func(t *testing.T) {
			s := start(t, dir, point)
			c := client(t, dir, s.url)
			todo := make(chan []byte, 10)
			for range 5 {
				n++
				todo <- l.Register(fmt.Sprintf("d%d", n), 1, nil)
			}
			if err := load(t.Context(), c, todo, k); err != nil {
				t.Fatal(err)
			}
			s.wait()
			verify(t, dir, k)
		})
	}
}
