// SPDX-License-Identifier: Apache-2.0

package phase

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
)

// script makes steps for all phases that note what they do; fail is the phase
// whose Do fails, badUndo one whose Undo fails.
func script(fail, badUndo Name, log *[]string) []Step {
	var steps []Step
	for _, n := range Order() {
		steps = append(steps, Step{Phase: n,
			Do: func(_ context.Context, o *Out) error {
				*log = append(*log, "do "+string(n))
				o.Digest("x", string(n))
				if n == fail {
					return errors.New("broken")
				}
				return nil
			},
			Undo: func(ctx context.Context) error {
				*log = append(*log, "undo "+string(n))
				if n == badUndo {
					return errors.New("stuck")
				}
				return ctx.Err()
			}})
	}
	return steps
}

func runner(reports *[]Report) *Runner {
	now := time.Unix(0, 0)
	return &Runner{UndoTimeout: time.Minute,
		Now:  func() time.Time { now = now.Add(time.Second); return now },
		Sink: func(r Report) error { *reports = append(*reports, r); return nil }}
}

func TestEachPhaseFailingOnceIsUndoneInReverse(t *testing.T) {
	for i, fail := range Order() {
		t.Run(string(fail), func(t *testing.T) {
			var log []string
			var reports []Report
			ctx, cancel := context.WithCancel(context.Background())
			err := runner(&reports).Run(ctx, script(fail, "", &log))
			cancel()
			var pe *Error
			if !errors.As(err, &pe) || pe.Phase != fail {
				t.Fatalf("error %v, want phase %s", err, fail)
			}
			var want, wantReports []string
			for _, n := range Order()[:i+1] {
				want = append(want, "do "+string(n))
				res := OK
				if n == fail {
					res = Failed
				}
				wantReports = append(wantReports, fmt.Sprint(n, res))
			}
			for k := i; k >= 0; k-- {
				want = append(want, "undo "+string(Order()[k]))
				wantReports = append(wantReports, fmt.Sprint(Order()[k], Undone))
			}
			if !slices.Equal(log, want) {
				t.Errorf("did %v\nwant %v", log, want)
			}
			var got []string
			for _, r := range reports {
				got = append(got, fmt.Sprint(r.Phase, r.Result))
				if r.Took <= 0 {
					t.Errorf("%s took %v", r.Phase, r.Took)
				}
			}
			if !slices.Equal(got, wantReports) {
				t.Errorf("reported %v\nwant %v", got, wantReports)
			}
		})
	}
}

func TestUndoGoesOnWhenOneUndoFails(t *testing.T) {
	var log []string
	var reports []Report
	err := runner(&reports).Run(context.Background(), script(Start, Network, &log))
	if err == nil || !slices.Contains(log, "undo "+string(Detect)) {
		t.Fatalf("undo stopped early: %v, %v", err, log)
	}
}

func TestUndoRunsThoughContextIsOver(t *testing.T) {
	var log []string
	var reports []Report
	ctx, cancel := context.WithCancel(context.Background())
	steps := script("", "", &log)
	steps[3].Do = func(ctx context.Context, _ *Out) error { cancel(); return ctx.Err() }
	err := runner(&reports).Run(ctx, steps)
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for _, r := range reports {
		if r.Result == Undone && r.Err != nil {
			t.Errorf("%s undone with %v", r.Phase, r.Err)
		}
	}
}

// TestOneTable: auditors go by the ledger's table of phases.
func TestOneTable(t *testing.T) {
	var here []string
	for _, n := range Order() {
		here = append(here, string(n))
	}
	if there := ledger.Phases(); !slices.Equal(here, there) {
		t.Errorf("here %v\non the ledger %v", here, there)
	}
}

// TestEndBetweenPhases: a run that is ended between two phases says at which.
func TestEndBetweenPhases(t *testing.T) {
	var log []string
	var reports []Report
	why := errors.New("stopped by entry 7")
	ctx, cancel := context.WithCancelCause(context.Background())
	steps := script("", "", &log)
	steps[Index(Plan)].Do = func(context.Context, *Out) error { cancel(why); return nil }
	err := runner(&reports).Run(ctx, steps)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
	i := slices.IndexFunc(reports, func(r Report) bool { return r.Result == Failed })
	if i < 0 || reports[i].Phase != Network || !errors.Is(reports[i].Err, why) || reports[i-1].Phase != Plan || reports[i-1].Result != OK || slices.Contains(log, "do network") {
		t.Errorf("reports %+v", reports)
	}
}

func TestPhaseThatCannotBeReportedFails(t *testing.T) {
	var log []string
	r := runner(new([]Report))
	r.Sink = func(rep Report) error {
		if rep.Phase == Claim && rep.Result == OK {
			return errors.New("queue full")
		}
		return nil
	}
	if err := r.Run(context.Background(), script("", "", &log)); err == nil || slices.Contains(log, "do "+string(Retrieve)) {
		t.Fatalf("went on: %v %v", err, log)
	}
}

func TestOrderIsHeld(t *testing.T) {
	for _, c := range [][]Step{
		{{Phase: Start}, {Phase: Plan}},
		{{Phase: Plan}, {Phase: Plan}},
		{{Phase: "other"}},
	} {
		if err := Check(c); !errors.Is(err, ErrOrder) {
			t.Errorf("%v: %v", c, err)
		}
	}
}
