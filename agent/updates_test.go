// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"testing"
)

// TestLacks: an image is blessed only by a node that lacks nothing.
func TestLacks(t *testing.T) {
	stuck := errors.New("loop ledger has not moved for 2m0s")
	for _, c := range []struct {
		ready, following bool
		stuck            error
		want             string
	}{
		{true, true, nil, ""},
		{false, true, nil, "drivers and hypervisor are not ready"},
		{true, false, nil, "the ledger is not followed"},
		{true, true, stuck, stuck.Error()},
		{false, false, stuck, "drivers and hypervisor are not ready"},
	} {
		got := ""
		if err := lacks(c.ready, c.following, c.stuck); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("ready %v, following %v, stuck %v: %q, want %q", c.ready, c.following, c.stuck, got, c.want)
		}
	}
}
