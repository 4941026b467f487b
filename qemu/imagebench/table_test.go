// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"
)

// TestTable: each row says whether it holds, and none is lost.
func TestTable(t *testing.T) {
	r := results{Minutes: 20, Notes: []string{"not measured"}, Rows: []row{
		{What: "convert", Image: "a", OursMs: []int64{1, 9, 2}, TheirsMs: []int64{4, 6, 5}, OursCPUMs: []int64{1}, CPURatio: 1.25, OursKiB: 2048, Ratio: 2.5, Goal: ">= 1.5", Holds: true, Load: "0.10"},
		{What: "convert", Image: "b", OursMs: []int64{5}, TheirsMs: []int64{5}, Ratio: 1, Goal: ">= 1.5"},
		{What: "bytes", Image: "a", Ours: 1, Theirs: 200, Ratio: 0.005, Goal: "<= 0.01", Holds: true},
		{What: "cold", Image: "a", Goal: ">= 5", Load: "0.10"},
		{What: "content", Image: "a", Names: 9, Goal: "no difference", Holds: true},
		{What: "content", Image: "b", Names: 9, Differ: []string{"x"}, Goal: "no difference"},
		{What: "gone", Image: "a", OursMs: []int64{7}, Goal: reported, Holds: true},
	}, Growth: []growth{{Files: 8, Bytes: 10 << 20, Ms: 3, CPUMs: 4, Goal: "<= 1.25 times", Times: 2}}}
	var b strings.Builder
	if err := r.table(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	for i, want := range []string{
		"row image ours against times by CPU memory load goal",
		"convert a 2 ms 5 ms 2.50 1.25 2 MiB 0.10 >= 1.5 holds",
		"convert b 5 ms 5 ms 1.00 >= 1.5 DOES NOT HOLD",
		"bytes a 1 B 200 B 0.0050 <= 0.01 holds",
		"cold a not measured 0.10 >= 5 DOES NOT HOLD",
		"content a 0 differ 9 names no difference holds",
		"content b 1 differ 9 names no difference DOES NOT HOLD",
		"gone a 7 ms reported reported",
		"growth 8 files, 10 MiB 3 ms 2.00 4 ms 0 MiB <= 1.25 times DOES NOT HOLD",
		"",
		"3 hold, 4 do not, 1 are only reported; 20 min",
		"note: not measured",
	} {
		if got := strings.Join(strings.Fields(lines[i]), " "); got != want {
			t.Errorf("line %d is %q, want %q", i, got, want)
		}
	}
}

// TestWhatCannotBeMeasuredDoesNotHold: a row that was left out is counted.
func TestWhatCannotBeMeasuredDoesNotHold(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no umoci, no skopeo
	b := &bench{}
	m := made{Name: "static"}
	if err := errors.Join(b.convert(t.Context(), m), b.content(t.Context(), m), b.cold(t.Context(), m)); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := b.res.table(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"0 hold, 3 do not", "note: " + coldRow + ": no umoci", "not measured"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
}
