// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"os/exec"
	"strings"
	"testing"
)

// Nodes link this package: it must not bring the consensus engine along.
func TestNoEngineLinked(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".", "./tiles", "./audit").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, dep := range strings.Fields(string(out)) {
		if strings.Contains(dep, "cometbft") || strings.HasSuffix(dep, "ledger/bft") {
			t.Errorf("links %s", dep)
		}
	}
}
