// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock/clocktest"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/ledger"
)

func isBroken(q *Queue, claim int64) bool {
	select {
	case <-q.Broken(claim):
		return true
	default:
		return false
	}
}

// TestRefusedBreaksTheClaim: a record that the ledger does not take leaves a
// hole that nothing can be recorded over, and that is told.
func TestRefusedBreaksTheClaim(t *testing.T) {
	dir, clk := t.TempDir(), clocktest.New(time.Unix(0, 0))
	f := &fakeLedger{refuse: string(phase.Match)}
	q := open(t, dir, f, clk)
	broken := q.Broken(3)
	for _, n := range []phase.Name{phase.Detect, phase.Match, phase.Claim} {
		if err := q.Record(3, report(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(q.Record(4, report(phase.Detect)), q.Close(4, "failed", "x")); err != nil {
		t.Fatal(err)
	}
	drain(t, q)
	select {
	case <-broken:
	case <-time.After(30 * time.Second):
		t.Fatal("nobody hears of it")
	}
	if isBroken(q, 4) || q.Refusal(4) != nil {
		t.Error("another claim is broken too")
	}
	if err := q.Refusal(3); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "record 1 (phase match, ok)") {
		t.Errorf("refusal %v", err)
	}
	if kept, err := filepath.Glob(dir + "/*.refused"); err != nil || len(kept) != 1 {
		t.Errorf("kept %v %v", kept, err)
	}
	// The next agent knows it as well, and the end can still be told.
	for range 2 {
		if err := q.Record(3, report(phase.Retrieve)); !errors.Is(err, ErrRefused) {
			t.Errorf("record of another phase: %v", err)
		}
		q = open(t, dir, f, clk)
		if !isBroken(q, 3) || isBroken(q, 4) {
			t.Error("the next agent does not know it")
		}
	}
	failed, undone := report(phase.Retrieve), report(phase.Claim)
	failed.Result, failed.Err, undone.Result = phase.Failed, errors.New("x"), phase.Undone
	if err := errors.Join(q.Record(3, failed), q.Record(3, undone), q.Close(3, "failed", "y")); err != nil {
		t.Fatal(err)
	}
	drain(t, q)
	var incidents []string
	var seq int64
	previous := ""
	for _, raw := range f.entries {
		e, err := ledger.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		switch p := e.Payload.(type) {
		case *ledger.Incident:
			incidents = append(incidents, p.Kind+" "+p.Detail)
			if p.Claim != 3 {
				t.Errorf("incident of claim %d", p.Claim)
			}
		case *ledger.Record:
			if p.Claim != 3 {
				continue
			}
			if p.Seq != seq || p.Previous != previous {
				t.Errorf("record %d (%s) follows %q, want %d after %q", p.Seq, p.Phase, p.Previous, seq, previous)
			}
			seq, previous = seq+1, ledger.HashEntry(raw)
		case *ledger.Close:
			if want := map[int64]int64{3: 4, 4: 1}[p.Claim]; p.Records != want {
				t.Errorf("close of claim %d counts %d records, want %d", p.Claim, p.Records, want)
			}
		}
	}
	if len(incidents) != 1 || !strings.HasPrefix(incidents[0], IncidentRefused+" record 1 (phase match, ok)") {
		t.Errorf("incidents %q", incidents)
	}
	if seq != 4 {
		t.Errorf("%d records", seq)
	}
	if q.Waiting() != 0 {
		t.Errorf("%d wait", q.Waiting())
	}
}

// TestRefusedBehindTheEnd: what was queued already, the close too, is made anew.
func TestRefusedBehindTheEnd(t *testing.T) {
	f := &fakeLedger{refuse: string(phase.Detect)}
	q := open(t, t.TempDir(), f, clocktest.New(time.Unix(0, 0)))
	if err := errors.Join(q.Record(3, report(phase.Detect)), q.Record(3, report(phase.Match)), q.Record(3, report(phase.Claim)), q.Close(3, "failed", "y")); err != nil {
		t.Fatal(err)
	}
	drain(t, q)
	chained(t, f, 2)
	for _, raw := range f.entries {
		e, err := ledger.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		if c, ok := e.Payload.(*ledger.Close); ok && c.Records != 2 {
			t.Errorf("the close counts %d records", c.Records)
		}
	}
	if len(f.entries) != 4 {
		t.Errorf("%d entries", len(f.entries))
	}
}

// TestRefusedClose: the claim is then as one that nothing is left of.
func TestRefusedClose(t *testing.T) {
	f := &fakeLedger{ends: true}
	dir := t.TempDir()
	q := open(t, dir, f, clocktest.New(time.Unix(0, 0)))
	if err := errors.Join(q.Record(3, report(phase.Detect)), q.Close(3, "stopped", "y")); err != nil {
		t.Fatal(err)
	}
	drain(t, q)
	if q.Closed(3) || len(q.Claims()) != 0 {
		t.Errorf("closed %t, kept %v", q.Closed(3), q.Claims())
	}
	if left, err := filepath.Glob(dir + "/chain-*"); err != nil || len(left) != 0 {
		t.Errorf("left %v %v", left, err)
	}
}

// TestUnreadableRecordIsNotPassedOver: what builds on it would be refused.
func TestUnreadableRecordIsNotPassedOver(t *testing.T) {
	f, clk := &fakeLedger{}, clocktest.New(time.Unix(0, 0))
	dir := t.TempDir()
	q := open(t, dir, f, clk)
	if err := errors.Join(q.Record(3, report(phase.Detect)), q.Record(3, report(phase.Match))); err != nil {
		t.Fatal(err)
	}
	first := filepath.Join(dir, "000000000000.entry")
	if err := os.Rename(first, first+".away"); err != nil {
		t.Fatal(err)
	}
	go q.Run(t.Context())
	for range 3 {
		clk.Await(1)
		clk.Advance(lastRetry)
	}
	f.mu.Lock()
	taken := len(f.entries)
	f.mu.Unlock()
	if q.Waiting() != 2 || taken != 0 {
		t.Errorf("%d wait, %d are on the ledger", q.Waiting(), taken)
	}
	if err := os.Rename(first+".away", first); err != nil {
		t.Fatal(err)
	}
	for q.Waiting() > 0 {
		clk.Await(1)
		clk.Advance(lastRetry)
	}
	chained(t, f, 2)
}

// TestOnlyStoriesBreak: an incident that concerns no claim has no story, and one
// that does is a part of it.
func TestOnlyStoriesBreak(t *testing.T) {
	q := open(t, t.TempDir(), &fakeLedger{}, clocktest.New(time.Unix(0, 0)))
	for claim, want := range map[int64]bool{-1: false, 3: true} {
		if err := q.Incident(claim, "x", "", "d"); err != nil {
			t.Fatal(err)
		}
		_, raw, ok := q.front(0)
		if !ok {
			t.Fatal("nothing waits")
		}
		if err := q.refused(raw, errors.New("no")); err != nil {
			t.Fatal(err)
		}
		if got := q.Refusal(claim) != nil; got != want || isBroken(q, claim) != want {
			t.Errorf("claim %d: broken %t", claim, got)
		}
	}
	if all := q.Claims(); len(all) != 1 {
		t.Errorf("chains of %v", all)
	}
}
