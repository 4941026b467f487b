// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"os/exec"
	"strings"
	"testing"
)

// Nodes link this package: it must not bring the consensus engine along, nor
// ML-DSA, which no key of a ledger is made of.
func TestNoEngineLinked(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".", "./tiles", "./audit").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, heavy := range []string{"cometbft", "ledger/bft", "mldsa", "transparency-dev"} {
			if strings.Contains(dep, heavy) {
				t.Errorf("links %s", dep)
			}
		}
	}
}
