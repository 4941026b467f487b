// SPDX-License-Identifier: Apache-2.0

package bft

import "testing"

// The power goes at every so many fsyncs; make test-ledger has every one.
func TestPowerCuts(t *testing.T) {
	sum, lost := alone(t, "", func(n int) int { return n + 9 }, 3)
	if lost != nil {
		t.Error(lost)
	}
	if sum.turns < 5 || sum.writes == 0 || sum.names == 0 {
		t.Errorf("the disk forgot too little: %s", sum)
	}
}

// A disk whose fsync does nothing loses entries, and the test sees it.
func TestPowerCutsAreSeen(t *testing.T) {
	if _, lost := alone(t, "lies", func(n int) int { return n + 40 }, 3); lost == nil {
		t.Error("nothing was lost on a disk that forgets everything")
	}
}
