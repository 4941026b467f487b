// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/ledger"
)

// incident is one that a node reported.
type incident struct {
	Index   int64  `json:"index"`
	TimeMs  int64  `json:"timeMs"` // ledger time
	Node    string `json:"node"`   // name
	NodeID  string `json:"nodeId"`
	Claim   int64  `json:"claim"` // -1 when it concerns none
	Kind    string `json:"kind"`
	Machine string `json:"machine"`
	Detail  string `json:"detail"`
}

func (a *app) nodeIncidents() *cobra.Command {
	var f ledgerFlags
	var whole bool
	cmd := &cobra.Command{
		Use:   "incidents [NODE]",
		Short: "what went wrong on nodes, as they said on the ledger",
		Long: "Lists what nodes reported: crashes of a node's kernel, init or agent, resets by its watchdog, memory or storage that ran out,\n" +
			"guests that panicked, mirrors and ledgers that lied. NODE is a name or an id. --detail shows the whole text of each,\n" +
			"such as the end of a kernel's log.",
		Example: "  zos node incidents --ledger http://127.0.0.1:8470 --root ledger/root.json edge-001 --detail",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("ledger") && os.Getenv("ZOS_LEDGER") == "" {
				return coded(exitUsage, fmt.Errorf("--ledger is needed (or ZOS_LEDGER): URL or folder of the ledger that the nodes follow; see %s --help", cmd.CommandPath()))
			}
			c, err := a.sync(cmd.Context(), f)
			if err != nil {
				return err
			}
			all, err := incidents(c.State(), args)
			if err != nil {
				return coded(exitNotFound, fmt.Errorf("%w; zos node capacity lists all that are", err))
			}
			return a.print(all, func(w io.Writer) { printIncidents(w, all, whole) })
		},
	}
	f.addNeeded(cmd)
	cmd.Flags().BoolVar(&whole, "detail", false, "the whole text of each")
	return cmd
}

// incidents of all nodes, or of the one that is named.
func incidents(s *ledger.State, node []string) ([]incident, error) {
	names := map[string]string{}
	for _, n := range s.Nodes() {
		names[n.ID] = n.Name
	}
	wanted := func(r ledger.Reported) bool { return true }
	if len(node) == 1 {
		known := slices.ContainsFunc(s.Nodes(), func(n *ledger.Node) bool { return n.Name == node[0] || n.ID == node[0] })
		if !known {
			return nil, fmt.Errorf("no node %q is enrolled", node[0])
		}
		// A node that enrolled anew has the name of the one before.
		wanted = func(r ledger.Reported) bool { return r.Node == node[0] || names[r.Node] == node[0] }
	}
	all := []incident{}
	for _, r := range s.Incidents() {
		if wanted(r) {
			i := r.Incident
			all = append(all, incident{r.Index, r.TimeMs, names[r.Node], r.Node, i.Claim, i.Kind, i.Machine, i.Detail})
		}
	}
	return all, nil
}

func printIncidents(w io.Writer, all []incident, whole bool) {
	if len(all) == 0 {
		fmt.Fprintln(w, "no node has reported an incident")
	}
	for _, i := range all {
		about := ""
		if i.Claim >= 0 {
			about = fmt.Sprintf(" (claim %d)", i.Claim)
		}
		first, rest, _ := strings.Cut(strings.TrimSpace(i.Detail), "\n")
		fmt.Fprintf(w, "%d  %s  %s  %s%s: %s\n", i.Index, clock(i.TimeMs), i.Node, harmless(i.Kind), about, harmless(first))
		if !whole || rest == "" {
			continue
		}
		for _, l := range strings.Split(rest, "\n") {
			fmt.Fprintf(w, "    %s\n", harmless(strings.ReplaceAll(l, "\t", "  ")))
		}
	}
}
