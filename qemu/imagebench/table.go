// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

const reported = "reported" // the goal of what is only told

// verdict says whether a goal was reached.
func verdict(goal string, holds bool) string {
	switch {
	case goal == reported:
		return reported
	case holds:
		return "holds"
	}
	return "DOES NOT HOLD"
}

// cannot adds a row that this machine cannot measure. Nobody knows whether it
// holds, so it does not.
func (b *bench) cannot(what, goal string, m made, why string) {
	b.note(what + ": " + why)
	b.res.Rows = append(b.res.Rows, row{What: what, Image: m.Name, Goal: goal, Load: load()})
}

// table writes every row of the results, its goal, and whether it was reached.
func (r results) table(out io.Writer) error {
	count := map[string]int{}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "row\timage\tours\tagainst\ttimes\tby CPU\tmemory\tload\tgoal\t")
	line := func(goal string, holds bool, cells ...string) {
		v := verdict(goal, holds)
		count[v]++
		fmt.Fprintf(w, "%s\t%s\t%s\n", strings.Join(cells, "\t"), goal, v)
	}
	for _, x := range r.Rows {
		ours, theirs, times, cpu, memory := "", "", "", "", ""
		switch {
		case x.Names > 0:
			ours, theirs = fmt.Sprint(len(x.Differ), " differ"), fmt.Sprint(x.Names, " names")
		case x.Ours > 0:
			ours, theirs, times = fmt.Sprint(x.Ours, " B"), fmt.Sprint(x.Theirs, " B"), fmt.Sprintf("%.4f", x.Ratio)
		case len(x.OursMs) > 0:
			ours = fmt.Sprint(median(x.OursMs), " ms")
		default:
			ours = "not measured"
		}
		if len(x.TheirsMs) > 0 {
			theirs, times = fmt.Sprint(median(x.TheirsMs), " ms"), fmt.Sprintf("%.2f", x.Ratio)
		}
		if len(x.OursCPUMs) > 0 {
			cpu, memory = fmt.Sprintf("%.2f", x.CPURatio), fmt.Sprint(x.OursKiB>>10, " MiB")
		}
		line(x.Goal, x.Holds, x.What, x.Image, ours, theirs, times, cpu, memory, x.Load)
	}
	for _, g := range r.Growth {
		line(g.Goal, g.Holds, "growth", fmt.Sprintf("%d files, %d MiB", g.Files, g.Bytes>>20), fmt.Sprint(g.Ms, " ms"), "",
			fmt.Sprintf("%.2f", g.Times), fmt.Sprint(g.CPUMs, " ms"), fmt.Sprint(g.KiB>>10, " MiB"), g.Load)
	}
	fmt.Fprintf(w, "\n%d hold, %d do not, %d are only reported; %d min\n", count["holds"], count["DOES NOT HOLD"], count[reported], r.Minutes)
	for _, n := range r.Notes {
		fmt.Fprintln(w, "note: "+n)
	}
	return w.Flush()
}

// load is the machine's load average over the last minute. Who measured beside
// others says so.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
