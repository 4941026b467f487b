// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

// TestGrowth: time per unit is held against the one before in its own series.
func TestGrowth(t *testing.T) {
	for _, c := range []struct {
		what   string
		g      growth
		before *growth
		times  float64
		holds  bool
	}{
		{"the first", growth{Files: 1000, PerFileUs: 90}, nil, 0, true},
		{"files, linear", growth{Files: 10_000, PerFileUs: 80, PerMiBUs: 999}, &growth{Files: 1000, PerFileUs: 80, PerMiBUs: 1}, 1, true},
		{"files, worse", growth{Files: 10_000, PerFileUs: 160}, &growth{Files: 1000, PerFileUs: 80}, 2, false},
		{"bytes, better", growth{Files: 8, PerMiBUs: 10, PerFileUs: 999}, &growth{Files: 8, PerMiBUs: 20, PerFileUs: 1}, 0.5, true},
		{"bytes, worse", growth{Files: 8, PerMiBUs: 30}, &growth{Files: 8, PerMiBUs: 20}, 1.5, false},
		{"too much memory", growth{Files: 8, PerMiBUs: 20, KiB: growthMemory + 1}, &growth{Files: 8, PerMiBUs: 20}, 1, false},
	} {
		if c.g.hold(c.before); c.g.Times != c.times || c.g.Holds != c.holds {
			t.Errorf("%s: %.2f times, holds %v; want %.2f, %v", c.what, c.g.Times, c.g.Holds, c.times, c.holds)
		}
	}
}
