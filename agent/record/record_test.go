// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock/clocktest"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
)

type fakeLedger struct {
	mu      sync.Mutex
	down    bool
	refuse  string // phase that is refused
	ends    bool   // a close is refused
	liar    bool   // gives receipts for what it does not take
	changed chan struct{}
	entries [][]byte
	tries   chan struct{}
}

func (f *fakeLedger) Acted() ledger.Acted {
	return ledger.Acted{Size: 7, Root: strings.Repeat("a", 64)}
}

func (f *fakeLedger) Submit(_ context.Context, raw []byte) (ledger.Receipt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case f.tries <- struct{}{}:
	default:
	}
	if f.down {
		return ledger.Receipt{}, ledger.ErrUnreachable
	}
	e, err := ledger.Decode(raw)
	if err != nil {
		return ledger.Receipt{}, err
	}
	if r, ok := e.Payload.(*ledger.Record); ok && r.Phase == f.refuse {
		return ledger.Receipt{}, &ledger.Refused{Reason: "no"}
	}
	if _, ok := e.Payload.(*ledger.Close); ok && f.ends {
		return ledger.Receipt{}, &ledger.Refused{Reason: "no"}
	}
	if f.liar {
		return ledger.Receipt{Index: 77}, nil
	}
	if !slices.ContainsFunc(f.entries, func(e []byte) bool { return bytes.Equal(e, raw) }) {
		f.entries = append(f.entries, raw)
	}
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
	return ledger.Receipt{Index: int64(len(f.entries))}, nil
}

func (f *fakeLedger) Has(raw []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.entries, func(e []byte) bool { return bytes.Equal(e, raw) })
}

func (f *fakeLedger) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

func (f *fakeLedger) set(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

func open(t *testing.T, dir string, f *fakeLedger, clk *clocktest.Clock) *Queue {
	t.Helper()
	s, _, err := sign.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	q, err := Open(Config{Dir: dir, Ledger: f, Signer: s, Clock: clk, Log: slog.New(slog.DiscardHandler), Moved: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func report(n phase.Name) phase.Report {
	return phase.Report{Phase: n, Result: phase.OK, Started: time.Unix(5, 0), Took: time.Second, Detail: "d"}
}

func drain(t *testing.T, q *Queue) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go q.Run(ctx)
	if err := q.Drain(ctx); err != nil {
		t.Fatal(err)
	}
}

// chained checks that the records of a claim on the ledger have no gap.
func chained(t *testing.T, f *fakeLedger, want int64) {
	t.Helper()
	var seq int64
	previous := ""
	for _, raw := range f.entries {
		e, err := ledger.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		r, ok := e.Payload.(*ledger.Record)
		if !ok {
			continue
		}
		if r.Seq != seq || r.Previous != previous {
			t.Errorf("record %d follows %q, want %d after %q", r.Seq, r.Previous, seq, previous)
		}
		seq, previous = seq+1, ledger.HashEntry(raw)
	}
	if seq != want {
		t.Errorf("%d records, want %d", seq, want)
	}
}

func TestOrderAndChain(t *testing.T) {
	f := &fakeLedger{}
	q := open(t, t.TempDir(), f, clocktest.New(time.Unix(0, 0)))
	for _, n := range phase.Order() {
		if err := q.Record(57, report(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(q.Incident(57, "guest-panic", "web", "x"), q.Close(57, "failed", "y"), q.Close(57, "failed", "twice")); err != nil {
		t.Fatal(err)
	}
	if err := q.Record(57, report(phase.Start)); !errors.Is(err, ErrClosed) {
		t.Errorf("record after close: %v", err)
	}
	drain(t, q)
	chained(t, f, int64(len(phase.Order())))
	if len(f.entries) != len(phase.Order())+2 {
		t.Errorf("%d entries", len(f.entries))
	}
	e, err := ledger.Decode(f.entries[len(f.entries)-1])
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := e.Payload.(*ledger.Close); !ok || c.Records != int64(len(phase.Order())) {
		t.Errorf("last is %+v", e.Payload)
	}
}

func TestNothingIsLostWhileLedgerIsAwayAndAgentDies(t *testing.T) {
	dir, f, clk := t.TempDir(), &fakeLedger{down: true, tries: make(chan struct{}, 100)}, clocktest.New(time.Unix(0, 0))
	for i := range 3 { // three agents, none of which reaches the ledger
		q := open(t, dir, f, clk)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); q.Run(ctx) }()
		for j := range 2 {
			if err := q.Record(3, report(phase.Order()[2*i+j])); err != nil {
				t.Fatal(err)
			}
		}
		<-f.tries
		cancel()
		<-done
	}
	// The agent died between the entry and the chain.
	if err := os.Remove(filepath.Join(dir, "chain-3")); err != nil {
		t.Fatal(err)
	}
	f.set(false)
	q := open(t, dir, f, clk)
	if q.LastPhase(3) != string(phase.Order()[5]) {
		t.Errorf("last phase %q", q.LastPhase(3))
	}
	if err := q.Record(3, report(phase.Order()[6])); err != nil {
		t.Fatal(err)
	}
	drain(t, q)
	chained(t, f, 7)
	if left, err := filepath.Glob(dir + "/*.entry"); err != nil || len(left) > 0 {
		t.Errorf("left %v %v", left, err)
	}
}

func TestRetryUntilTheLedgerIsBack(t *testing.T) {
	f, clk := &fakeLedger{down: true, tries: make(chan struct{}, 100)}, clocktest.New(time.Unix(0, 0))
	q := open(t, t.TempDir(), f, clk)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go q.Run(ctx)
	if err := q.Record(3, report(phase.Detect)); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		<-f.tries
		clk.Await(1)
		clk.Advance(lastRetry)
	}
	f.set(false)
	for q.Waiting() > 0 {
		clk.Advance(lastRetry)
		runtime.Gosched()
	}
	chained(t, f, 1)
}

func TestReceiptIsNotBelieved(t *testing.T) {
	f, clk := &fakeLedger{liar: true, tries: make(chan struct{}, 100)}, clocktest.New(time.Unix(0, 0))
	dir := t.TempDir()
	q := open(t, dir, f, clk)
	for _, n := range []phase.Name{phase.Detect, phase.Match} {
		if err := q.Record(3, report(n)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go q.Run(ctx)
	<-f.tries
	<-f.tries
	if q.Waiting() != 2 {
		t.Error("a receipt was believed")
	}
	f.mu.Lock()
	f.liar = false
	f.mu.Unlock()
	for q.Waiting() > 0 {
		clk.Await(1)
		clk.Advance(lastRetry)
	}
	chained(t, f, 2)
}

func TestLongTextIsClipped(t *testing.T) {
	f := &fakeLedger{}
	q := open(t, t.TempDir(), f, clocktest.New(time.Unix(0, 0)))
	r := report(phase.Start)
	r.Detail = strings.Repeat("ä\xff", 9000)
	r.Err, r.Result = fmt.Errorf("%s the end", strings.Repeat("x", 9000)), phase.Failed
	if err := q.Record(1, r); err != nil {
		t.Fatal(err)
	}
	drain(t, q)
	e, err := ledger.Decode(f.entries[0])
	if err != nil {
		t.Fatal(err)
	}
	if p := e.Payload.(*ledger.Record); !strings.HasSuffix(p.Error, "the end") {
		t.Error("the end of the error is cut off")
	}
}

func TestResume(t *testing.T) {
	f := &fakeLedger{}
	q := open(t, t.TempDir(), f, clocktest.New(time.Unix(0, 0)))
	if err := q.Resume(9, 4, "sha256:"+strings.Repeat("b", 64)); err != nil {
		t.Fatal(err)
	}
	if err := q.Record(9, report(phase.Start)); err != nil {
		t.Fatal(err)
	}
	drain(t, q)
	e, err := ledger.Decode(f.entries[0])
	if err != nil {
		t.Fatal(err)
	}
	if p := e.Payload.(*ledger.Record); p.Seq != 4 {
		t.Errorf("seq %d", p.Seq)
	}
	if err := errors.Join(q.Resume(9, 4, "behind"), q.Record(9, report(phase.Start))); err != nil {
		t.Fatal(err)
	}
	if q.chains[9].Seq != 6 {
		t.Errorf("a chain went back to what the ledger had: %+v", q.chains[9])
	}
	if err := q.Forget(9); err != nil || q.LastPhase(9) != "" {
		t.Error(err)
	}
}
