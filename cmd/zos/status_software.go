// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/zos-node/zos/ledger"
)

// softwareStatus is what nodes are to run, and how they fare, as status shows it.
type softwareStatus struct {
	Floor    string          `json:"floor"` // "" when there is none
	Releases []releaseStatus `json:"releases"`
	Rollouts []rolloutStatus `json:"rollouts"`
}

type releaseStatus struct {
	ID      int64                 `json:"id"`
	Version string                `json:"version"`
	Images  []ledger.ReleaseImage `json:"images"`
	Chunks  []string              `json:"chunks"` // lists of chunks of the images, in their order; none bound: empty
}

type rolloutStatus struct {
	ID      int64             `json:"id"`
	Version string            `json:"version"`
	SinceMs int64             `json:"sinceMs"`
	Labels  map[string]string `json:"labels"`
	Waves   []int64           `json:"waves"`
	PaceMs  int64             `json:"paceMs"`
	Halted  bool              `json:"halted"`
	Trying  int64             `json:"trying"`
	Blessed int64             `json:"blessed"`
	Failed  int64             `json:"failed"`
	Nodes   []updateStatus    `json:"nodes"` // the last word of each
}

type updateStatus struct {
	Name    string `json:"name"`
	Entry   int64  `json:"entry"`
	Result  string `json:"result"`
	Running string `json:"running"`
	Reason  string `json:"reason"`
}

func softwareOf(s *ledger.State) softwareStatus {
	st := softwareStatus{Floor: s.Floor(), Releases: []releaseStatus{}, Rollouts: []rolloutStatus{}}
	for _, r := range s.Releases() {
		st.Releases = append(st.Releases, releaseStatus{r.ID, r.Version, r.Release.Images, append([]string{}, r.Chunks...)})
	}
	for _, r := range s.Rollouts() {
		p := r.Rollout
		one := rolloutStatus{ID: r.ID, Version: p.Version, SinceMs: r.SinceMs, Labels: p.Labels, Waves: p.Waves, PaceMs: p.PaceMs,
			Halted: r.Halted(), Trying: r.Trying, Blessed: r.Blessed, Failed: r.Failed, Nodes: []updateStatus{}}
		for _, u := range s.Updates() {
			if last := s.Updated(r.ID, u.Name); last != nil && last.Index == u.Index {
				one.Nodes = append(one.Nodes, updateStatus{u.Name, u.Index, u.Result, u.Running, u.Reason})
			}
		}
		st.Rollouts = append(st.Rollouts, one)
	}
	return st
}

func (st softwareStatus) write(w io.Writer) {
	if len(st.Releases) == 0 {
		return
	}
	var versions []string
	for _, r := range st.Releases {
		versions = append(versions, r.Version)
	}
	floor := ""
	if st.Floor != "" {
		floor = ", nothing below " + st.Floor
	}
	fmt.Fprintf(w, "\nnodes' software: released %s%s\n", strings.Join(versions, ", "), floor)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range st.Rollouts {
		state := ""
		if r.Halted {
			state = ", HALTED"
		}
		fmt.Fprintf(t, "  rollout of %s (entry %d): %d trying, %d blessed, %d failed%s\n", r.Version, r.ID, r.Trying, r.Blessed, r.Failed, state)
		for _, n := range r.Nodes {
			fmt.Fprintf(t, "    node %s\t%s\truns %s\t%s\n", n.Name, n.Result, n.Running, harmless(n.Reason))
		}
	}
	if err := t.Flush(); err != nil {
		fmt.Fprintf(w, "  %v\n", err)
	}
}
