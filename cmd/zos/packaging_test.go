// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/zos-node/zos/ledger"
)

// TestUnitsHaveEveryFlag: what can be set on the command line of a server can be set
// in its file in /etc/default, with the value that it has without.
func TestUnitsHaveEveryFlag(t *testing.T) {
	for name, c := range map[string]struct {
		cmd  *cobra.Command
		not  []string          // flags that a service does not have
		says map[string]string // variables with another name than their flag
	}{
		"zos-ledger": {ledgerServeCommand(&app{}), []string{"verbose"}, nil},
		"zos-mirror": {ledgerMirrorCommand(&app{}), []string{"verbose", "once", "state"}, map[string]string{"ledger": "LEDGERS"}},
	} {
		read := func(parts ...string) string {
			b, err := os.ReadFile(filepath.Join(append([]string{"..", "..", "packaging"}, parts...)...))
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		unit, settings := read("systemd", name+".service"), read("debian", name+".default")
		c.cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if slices.Contains(c.not, f.Name) || f.Name == "help" {
				return
			}
			variable := strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			if other := c.says[f.Name]; other != "" {
				variable = other
			}
			if !strings.Contains(unit, " --"+f.Name+" ${"+variable+"}") {
				t.Errorf("%s.service does not set --%s", name, f.Name)
			}
			if !strings.Contains("\n"+settings, "\n"+variable+"=") {
				t.Errorf("%s.default lacks %s", name, variable)
			}
			if strings.Contains("snapshot-every every reserve keep", f.Name) && !strings.Contains(unit, variable+"="+f.DefValue) {
				t.Errorf("%s.service has another %s than %s", name, variable, f.DefValue)
			}
		})
	}
}

// TestRunbookHasLimits: how long a node may be silent stands in the runbook as it is.
func TestRunbookHasLimits(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "ledger.md"))
	if err != nil {
		t.Fatal(err)
	}
	contains(t, string(b), fmt.Sprintf("%d min for each of the two that fetch; %d min, and %d s beside `health.deadlineMs` for each machine, for `start` and `post-verify`; %d min for the others (`ledger.PhaseLimit`)",
		ledger.FetchLimit/time.Minute, ledger.BootLimit/time.Minute, ledger.HealthSlack/time.Second, ledger.StepLimit/time.Minute))
}
