// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bft

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/ledger/tiles"
	"github.com/zos-node/zos/spec"
)

// million makes a log as long as ZOS_BENCH_ENTRIES says, 10⁶ without: 100 nodes
// run 1000 deployments and renew their claims, which is what long logs are made
// of. The real Apply takes each entry, the real writer writes the tiles. Then a
// client starts from its snapshot, and another one from entry 0.
func (b *bench) million(t *testing.T) {
	entries := 1_000_000
	if s := os.Getenv("ZOS_BENCH_ENTRIES"); s != "" {
		var err error
		if entries, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	f := newFleet(t, 100)
	l := f.log
	var claims []renewal
	for i := 0; i < 1000; i += 100 {
		var block [][]byte
		for j := range 100 {
			block = append(block, l.Register(fmt.Sprintf("m%d", i+j), 1, func(d *spec.Deployment) { d.Gateways = nil }))
		}
		out := l.Block(block...)
		l.Pass((100 * 10 * time.Second).Milliseconds()) // it is everybody's turn
		block = nil
		for j, n := range f.made {
			block = append(block, n.Claim(out.Indexes[j]))
		}
		out = l.Block(block...)
		for j, n := range f.made {
			if err := out.Refused[j]; err != nil {
				t.Fatal(err)
			}
			claims = append(claims, renewal{n, out.Indexes[j]})
		}
	}
	s := l.State()
	s.UseCache(ledger.NewCache())
	w := tiles.NewWriter(tiles.Dir(l.Dir))
	for _, leaf := range l.Leaves {
		w.Restore(leaf)
	}
	begin, spent := time.Now(), time.Duration(0)
	from := s.Size()
	for s.Size() < int64(entries) {
		block := renewals(t, claims, s.Acted())
		start := time.Now()
		out := s.Apply(s.Height()+1, s.TimeMs()+1000, block)
		spent += time.Since(start)
		if len(out.Refused) > 0 {
			t.Fatalf("%d renewals were refused: %v", len(out.Refused), out.Refused)
		}
		if err := w.Append(out.Leaves); err != nil {
			t.Fatal(err)
		}
		if done := s.Size() / 100_000; done > (s.Size()-int64(len(out.Leaves)))/100_000 {
			t.Logf("%d entries after %s", s.Size(), time.Since(begin).Round(time.Second))
		}
	}
	size := s.Size()
	if err := w.Publish(size, l.Checkpoint(w.Head())); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("log of %d entries: ", size)
	b.add(benchRow{What: name + "Apply", Value: float64(size-from) / spent.Seconds(), Unit: "entries/s", Note: "renewals of 1000 claims by 100 nodes, in blocks of 1000; one signature each"})
	snapshot := s.Snapshot()
	if err := tiles.WriteFileSync(filepath.Join(l.Dir, "snapshot"), snapshot, 0o644); err != nil {
		t.Fatal(err)
	}
	root := s.StateRoot()
	s, l.Leaves = nil, nil // what they hold is not the client's
	var start time.Time
	var best, busy time.Duration
	for range 3 {
		runtime.GC()
		before := processorTime(t)
		start = time.Now()
		if got := caughtUp(t, l, true); got != root {
			t.Fatalf("a start from the snapshot has state root %s, want %s", got, root)
		}
		if took := time.Since(start); best == 0 || took < best {
			best, busy = took, processorTime(t)-before
		}
	}
	b.add(benchRow{What: name + "start from the snapshot, best of 3", Value: best.Seconds(), Unit: "s", Goal: "<= 2 s", Met: yes(best <= 2*time.Second), Note: fmt.Sprintf("a snapshot of %d MB, checked against the log; %.2f s of processor time", len(snapshot)/1_000_000, busy.Seconds())})
	runtime.GC()
	before := processorTime(t)
	start = time.Now()
	if got := caughtUp(t, l, false); got != root {
		t.Fatalf("a replay has state root %s, want %s", got, root)
	}
	rate := float64(size) / time.Since(start).Seconds()
	b.add(benchRow{What: name + "client catch-up from entry 0, every signature and rule", Value: rate, Unit: "entries/s", Anchor: replayRate, Goal: ">= 5 x", Met: yes(rate >= 5*replayRate), Note: fmt.Sprintf("%.0f s in all, %.0f s of processor time", float64(size)/rate, (processorTime(t) - before).Seconds())})
}

// processorTime is what this process has used, whatever else the machine does.
func processorTime(t *testing.T) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// renewal is a claim and the node that has it.
type renewal struct {
	node  *ledgertest.Node
	claim int64
}

// renewals signs a block of them, on all processors.
func renewals(t *testing.T, claims []renewal, acted ledger.Acted) [][]byte {
	return inParallel(t, len(claims), func(i int) ([]byte, error) {
		return ledger.NewEntry(ledger.TypeRenew, ledger.Renew{Claim: claims[i].claim, Acted: acted}, claims[i].node.Key)
	})
}

// caughtUp is the state root of a client that has read the log.
func caughtUp(t *testing.T, l *ledgertest.Log, snapshot bool) string {
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Dir}, Snapshot: snapshot})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c.State().StateRoot()
}
