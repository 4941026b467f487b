// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"testing"

	"github.com/zos-node/zos/ledger/ledgertest"
)

// While one snapshot is written the log may grow by more than the distance of
// two, and then be quiet: the next one is due all the same. One that has to wait
// does not take a newer one's place.
func TestSnapshotsAfterABurst(t *testing.T) {
	l := ledgertest.New(t)
	a := &app{state: l.State(), every: 1}
	older := a.state
	if a.due(); a.snap == nil || a.snapped != a.state.Size() {
		t.Fatalf("none is due at size %d: snapped %d", a.state.Size(), a.snapped)
	}
	newer := a.snap
	if a.later(older); a.snap != newer {
		t.Error("an older snapshot took a newer one's place")
	}
	a.snap = nil
	if a.due(); a.snap != nil {
		t.Error("one is due although nothing was added")
	}
	if a.later(older); a.snap != older {
		t.Error("one that waits is lost")
	}
}
