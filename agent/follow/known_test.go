// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"testing"

	"github.com/zos-node/zos/ledger"
)

// TestSame: an offer that came back from the ledger is the one that was made,
// and every change of it is a new one.
func TestSame(t *testing.T) {
	made := func() ledger.Capacity {
		return ledger.Capacity{Arch: "amd64", MemoryMiB: 1, Addresses: []string{}, Boot: ledger.Boot{Key: "sealed", Lacks: []string{}}}
	}
	back := made()
	back.Addresses, back.Boot.Lacks, back.Acted = nil, nil, ledger.Acted{Size: 7}
	if !same(back, made()) {
		t.Error("it is published again for ever")
	}
	for name, change := range map[string]func(*ledger.Capacity){
		"memory": func(c *ledger.Capacity) { c.MemoryMiB = 2 }, "address": func(c *ledger.Capacity) { c.Addresses = []string{"192.0.2.1"} },
		"key": func(c *ledger.Capacity) { c.Boot.Key = "clear" }, "lacks": func(c *ledger.Capacity) { c.Boot.Lacks = []string{"a TPM"} },
	} {
		c := made()
		if change(&c); same(made(), c) {
			t.Errorf("a change of its %s is not published", name)
		}
	}
}
