// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/audit"
)

func statusCommand(a *app) *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{
		Use:   "status [DEPLOYMENT]",
		Short: "show what runs where, and why something does not",
		Long: `Show the state of every deployment, or of one by name or log index: registered
(no node has it), claimed, running, failed, stopping, stopped or replaced; and
where no node has it, for each node what is against it or when its turn comes.
Then which versions of the node's image were released, and how far rollouts are.

Exit codes: 0 shown, 3 the ledger is not to be believed, or is too old for
--max-age, 4 no such deployment, 5 ledger not reached.`,
		Example: `  zos status --root root.json
  zos status shop --root root.json --json | jq -r .deployments[0].status`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.status(cmd.Context(), f, strings.Join(args, ""))
		},
	}
	f.add(cmd)
	f.addMaxAge(cmd)
	return cmd
}

// deploymentStatus is a deployment as status shows it.
type deploymentStatus struct {
	ID       int64         `json:"id"`
	Name     string        `json:"name"`
	Version  int64         `json:"version"`
	Status   string        `json:"status"`
	Digest   string        `json:"digest"`
	Replicas int64         `json:"replicas"`
	SinceMs  int64         `json:"registeredMs"`
	Attempt  int64         `json:"attempt"`
	Claims   []claimStatus `json:"claims"`
	Nodes    []nodeStatus  `json:"nodes"` // those that could have it, or why not, while it waits
}

type claimStatus struct {
	Claim     int64  `json:"claim"`
	Node      string `json:"node"`
	NodeName  string `json:"nodeName"`
	State     string `json:"state"` // of the lease
	Running   bool   `json:"running"`
	Phase     string `json:"phase"`
	Result    string `json:"result"`
	Error     string `json:"error"`
	Incidents int64  `json:"incidents"`
	ExpiresMs int64  `json:"expiresMs"`
	Closed    string `json:"closed"` // result of its close, "" before
	Reason    string `json:"reason"`
}

type nodeStatus struct {
	Node    string   `json:"node"`
	Name    string   `json:"name"`
	FromMs  int64    `json:"fromMs"`  // may claim from this ledger time, 0 if it does not fit
	Reasons []string `json:"reasons"` // against it
}

func (a *app) status(ctx context.Context, f ledgerFlags, deployment string) error {
	c, err := a.sync(ctx, f)
	if err != nil {
		return err
	}
	if err := f.fresh(c); err != nil {
		return err
	}
	s, log := c.State(), seenOf(c)
	list := s.Deployments()
	if deployment != "" {
		d, err := findDeployment(s, deployment)
		if err != nil {
			return err
		}
		list = []*ledger.Deployment{d}
	}
	all := []deploymentStatus{}
	for _, d := range list {
		all = append(all, statusOf(s, d))
	}
	software := softwareOf(s)
	return a.print(struct {
		seenLog
		Nodes       int                `json:"nodeCount"`
		Deployments []deploymentStatus `json:"deployments"`
		Software    softwareStatus     `json:"software"`
	}{log, len(s.Nodes()), all, software}, func(w io.Writer) {
		fmt.Fprintf(w, "ledger %s, %d nodes\n", log.until(), len(s.Nodes()))
		log.warn(w)
		if len(all) == 0 {
			fmt.Fprintln(w, "no deployment yet; zos submit puts one on the ledger")
		}
		for _, d := range all {
			d.write(w)
		}
		if deployment == "" {
			software.write(w)
		}
	})
}

func statusOf(s *ledger.State, d *ledger.Deployment) deploymentStatus {
	st := deploymentStatus{ID: d.ID, Name: d.Name, Version: d.Version, Status: s.Status(d), Digest: d.Digest, Replicas: d.Spec.Placement.Replicas,
		SinceMs: d.RegisteredMs, Attempt: d.Attempt, Claims: []claimStatus{}, Nodes: []nodeStatus{}}
	for _, g := range s.Claims(d.ID) {
		st.Claims = append(st.Claims, claimStatus{Claim: g.Index, Node: g.Node, NodeName: s.Node(g.Node).Name, State: g.State, Running: g.Running, Phase: g.Phase,
			Result: g.Result, Error: g.Error, Incidents: g.Incidents, ExpiresMs: g.ExpiresMs, Closed: g.CloseResult, Reason: g.CloseReason})
	}
	if s.Open(d) == 0 {
		return st
	}
	for _, n := range s.Nodes() {
		from, reasons := s.MayClaim(d, n.ID)
		st.Nodes = append(st.Nodes, nodeStatus{n.ID, n.Name, from, slices.Concat([]string{}, reasons)})
	}
	return st
}

func (d deploymentStatus) write(w io.Writer) {
	fmt.Fprintf(w, "\n%s version %d (entry %d): %s\n", d.Name, d.Version, d.ID, strings.ToUpper(d.Status))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range d.Claims {
		state := c.State
		reason := c.Reason
		switch {
		case c.State == ledger.GrantReleased:
			// Others may have it; no failure of the deployment, whatever the close says.
			state, reason = strings.Join(said("given back", c.Reason), ": "), ""
		case c.Closed != "":
			state = "closed: " + c.Closed
		case c.Running:
			state = "running"
		}
		last := ""
		if c.Phase != "" {
			last = "last phase " + c.Phase + " " + c.Result
		}
		if c.Incidents > 0 {
			last += fmt.Sprintf(", %d incidents", c.Incidents)
		}
		fmt.Fprintf(t, "  node %s\tclaim %d\t%s\n", c.NodeName, c.Claim, harmless(strings.Join(said(state, last, c.Error, reason), "; ")))
	}
	for _, n := range d.Nodes {
		what := "fits; may claim from " + clock(n.FromMs)
		if len(n.Reasons) > 0 {
			what = strings.Join(n.Reasons, "; ")
		}
		fmt.Fprintf(t, "  node %s\tno claim\t%s\n", n.Name, harmless(what))
	}
	if len(d.Nodes)+len(d.Claims) == 0 && d.Status == ledger.Registered {
		fmt.Fprintln(t, "  no node has enrolled yet")
	}
	if err := t.Flush(); err != nil {
		fmt.Fprintf(w, "  %v\n", err)
	}
}

// said leaves out what is empty.
func said(words ...string) []string {
	return slices.DeleteFunc(words, func(s string) bool { return s == "" })
}

// findDeployment resolves a name, which stands for its newest version, or a
// log index.
func findDeployment(s *ledger.State, deployment string) (*ledger.Deployment, error) {
	d := s.DeploymentByName(deployment)
	if id, err := strconv.ParseInt(deployment, 10, 64); d == nil && err == nil {
		d = s.Deployment(id)
	}
	if d == nil {
		return nil, coded(exitNotFound, &audit.NotFound{Deployment: deployment})
	}
	return d, nil
}
