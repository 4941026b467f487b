// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/audit"
)

func historyCommand(a *app) *cobra.Command {
	var f ledgerFlags
	var wide bool
	cmd := &cobra.Command{
		Use:   "history DEPLOYMENT",
		Short: "tell what happened to a deployment: every phase, who signed, where in the log",
		Long: `List every entry of a deployment, by name (all versions) or log index: ledger
time, what happened, how it went and how long it took, the digest of what was
signed, and who signed it as what, or why that key does not count. Then of what
people signed, under which policy they had to agree; of each claim, why its node
was allowed then: its rank, counted from 0, among the eligible nodes, and the
window from which that rank may claim.

Exit codes: 0 shown, 3 the ledger is not to be believed, or is too old for
--max-age, 4 no such deployment, 5 ledger not reached.`,
		Example: `  zos history shop --root root.json
  zos history shop --root root.json --json | jq '.items[] | select(.kind=="record") | {phase, durationMs}'`,
		Args: exactly(1, "the deployment"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.whole = true
			return a.history(cmd.Context(), f, args[0], wide)
		},
	}
	f.add(cmd)
	f.addMaxAge(cmd)
	cmd.Flags().BoolVar(&wide, "wide", false, "digests and key ids in full")
	return cmd
}

func (a *app) history(ctx context.Context, f ledgerFlags, deployment string, wide bool) error {
	f.turns = true
	c, err := a.sync(ctx, f)
	if err != nil {
		return err
	}
	if err := f.fresh(c); err != nil {
		return err
	}
	st, err := audit.History(ctx, c, deployment)
	if err != nil {
		return auditError(err)
	}
	log := seenOf(c)
	return a.print(struct {
		*audit.Story
		Log seenLog `json:"log"`
	}{st, log}, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s%s\n  ledger      %s\n", st.Name, st.Status, log.asOf(), log.until())
		log.warn(w)
		writeStory(w, st, wide)
	})
}

// auditError gives the errors of package audit their exit codes.
func auditError(err error) error {
	var none *audit.NotFound
	if errors.As(err, &none) {
		return coded(exitNotFound, err)
	}
	return ledgerError(err)
}

func writeStory(w io.Writer, st *audit.Story, wide bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "INDEX\tLEDGER TIME\tWHAT\tRESULT\tTOOK\tDIGEST\tSIGNED BY\t")
	for _, it := range st.Items {
		what, took := it.Kind, ""
		if it.Phase != "" {
			what, took = it.Phase, (time.Duration(it.DurationMs) * time.Millisecond).String()
		}
		for i, s := range it.Signers {
			by := fmt.Sprintf("%s %s", short(s.Key, 16, wide), strings.Join(said(s.Role, s.Not), ", "))
			if i > 0 {
				fmt.Fprintf(t, "\t\t\t\t\t\t%s\t\n", by)
				continue
			}
			fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t\n", it.Index, clock(it.TimeMs), harmless(what), harmless(it.Result), took, short(it.Digest, 19, wide), by)
		}
	}
	if err := t.Flush(); err != nil {
		fmt.Fprintf(w, "%v\n", err)
	}
	for _, it := range st.Items {
		if detail := strings.TrimSpace(it.Detail); detail != "" && (wide || it.Result == "failed" || it.Kind != "record") {
			fmt.Fprintf(w, "%d: %s\n", it.Index, harmless(detail))
		}
		for _, p := range it.Policies {
			fmt.Fprintf(w, "%d: %s\n", it.Index, harmless(p.String()))
		}
		if it.Turn != nil {
			fmt.Fprintf(w, "%d: %s\n", it.Index, turn(it.Turn))
		}
	}
}

// turn says why a node was allowed to claim when it did.
func turn(t *ledger.Turn) string {
	return fmt.Sprintf("rank %d (0 is first) of %d eligible nodes, open places %d: allowed from window %d (%s), claimed in window %d",
		t.Rank, t.Eligible, t.Open, t.Window, clock(t.FromMs), t.ClaimedIn)
}

// harmless shows text of others so that it can neither start a line of its
// own nor steer the terminal.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\u00b7'
	}, strings.ReplaceAll(s, "\n", " | "))
}

// harmlessLines does the same for a message of several lines.
func harmlessLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = harmless(l)
	}
	return strings.Join(lines, "\n")
}

// short cuts an identifier for a table.
func short(s string, n int, wide bool) string {
	if wide || len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
