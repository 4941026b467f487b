// SPDX-License-Identifier: Apache-2.0

package media

import (
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/qemu/ledgerproc"
)

// TestUpdateWaves: a node waits for its wave of a rollout to nodes of its label, and
// says so; a newer rollout, to nodes of another label, is none of its business.
func TestUpdateWaves(t *testing.T) {
	whole(t)
	f := newFleet(t, nil)
	f.put("1.1", f.build("1.1", nil))
	f.put("1.2", f.build("1.2", nil))
	// Where a node stands among the waves is another place for each rollout. The
	// first percent of nodes is not what this is about.
	for second := false; !second; {
		r := ledger.Rolled{ID: f.rollout("1.1", "--label", ledgerproc.Label, "--waves", "1,100", "--pace", "4m"), Rollout: ledger.Rollout{Waves: []int64{1, 100}, PaceMs: 1}}
		second = r.FromMs("edge") > 0
	}
	f.rollout("1.2", "--label", "site=elsewhere", "--waves", "100")
	f.on()
	says(t, f.m, `no update: its wave of rollout \d+ begins at \S+Z by the ledger's time`)
	f.of = "1.1"
	if u := f.word(); u != (update{}) {
		t.Errorf("before its wave: %+v", u)
	}
	if u := f.until("blessed"); u.Running != "1.1" {
		t.Errorf("%+v", u)
	}
	if f.of = "1.2"; f.word() != (update{}) {
		t.Errorf("of the rollout for others: %+v", f.word())
	}
}
