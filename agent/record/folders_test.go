// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock/clocktest"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/sign"
)

// TestDiskThatTakesNothing: what a full or broken disk does not take is kept in memory
// and comes onto the ledger in its order, also through the end of the agent;
// when the disk takes files again it has them.
func TestDiskThatTakesNothing(t *testing.T) {
	f, clk := &fakeLedger{}, clocktest.New(time.Unix(0, 0))
	base := t.TempDir()
	kept, spill := filepath.Join(base, "kept"), filepath.Join(base, "spill")
	signer, _, err := sign.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	open := func() *Queue {
		t.Helper()
		q, err := Open(Config{Dir: kept, Spill: spill, Ledger: f, Signer: signer, Clock: clk, Log: slog.New(slog.DiscardHandler), Moved: func() {}})
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	say := func(q *Queue, p phase.Name) {
		t.Helper()
		if err := q.Record(3, report(p)); err != nil {
			t.Fatal(err)
		}
	}
	q := open()
	say(q, phase.Detect)
	// A file in the folder's place takes nothing, root's writes neither.
	if err := errors.Join(os.Rename(kept, kept+".away"), os.WriteFile(kept, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	say(q, phase.Match)
	say(q, phase.Plan)
	if left, err := os.ReadDir(spill); err != nil || len(left) != 3 {
		t.Fatalf("two records and the chain are to be in memory: %v, %v", left, err)
	}
	if err := errors.Join(os.Remove(kept), os.Rename(kept+".away", kept)); err != nil {
		t.Fatal(err)
	}
	q = open()
	if q.Waiting() != 3 || q.LastPhase(3) != string(phase.Plan) {
		t.Fatalf("%d wait, the last phase is %q", q.Waiting(), q.LastPhase(3))
	}
	say(q, phase.FetchMetadata)
	go q.Run(t.Context())
	for q.Waiting() > 0 {
		clk.Await(1)
		clk.Advance(lastRetry)
	}
	chained(t, f, 4)
	if left, err := os.ReadDir(spill); err != nil || len(left) != 0 {
		t.Errorf("in memory are still %v, %v", left, err)
	}
	if left, err := os.ReadDir(kept); err != nil || len(left) != 1 {
		t.Errorf("the disk has %v, %v, want the chain", left, err)
	}
}
