// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/hex"
	"os"
	"testing"

	"github.com/zos-node/zos/qemu"
)

// TestOfflineReboot: what a node with a disk saw while it could reach no ledger
// comes onto it although the machine was cut off meanwhile: here a block that
// is not what was signed, which ended a guest. Nobody would look at the node else.
func TestOfflineReboot(t *testing.T) {
	if os.Getenv("ZOS_BOOT") != "all" {
		t.Skip("SKIP TestOfflineReboot: with ZOS_BOOT=all (make test-boot)")
	}
	w := newWorld(t)
	n := w.bootAs(anyDriver(t), "offline", true, func(o *qemu.Options) {
		o.UEFI, o.Restart = &qemu.UEFI{Bus: "virtio", Write: true, Keep: w.path("vars.fd")}, true
	}, w.mirror())
	n.follows(t)
	id := w.register(w.deployment("chain"))
	before := w.running(deadline(t), id)
	n.serves(t)

	m := n.Console.Mark()
	w.gate.down()
	n.says(t, m, `waiting for.*ledger`)
	n.fault(t, map[string]any{"do": "flip", "file": "/run/zos/store/images/*", "pattern": hex.EncodeToString(canaryBytes())}, nil)
	m = n.Console.Mark()
	if _, err := page(n.gateway, "/canary"); err == nil {
		t.Error("the guest served the block although it is not what was signed")
	}
	_, m = n.says(t, m, `guest-panic`)
	_, m = n.says(t, m, `waiting for the ledger to take records`)
	if err := n.Monitor(deadline(t), "system_reset"); err != nil { // as when power is cut
		t.Fatal(err)
	}
	_, m = n.says(t, m, `msg="records are left from an earlier agent"`)
	n.says(t, m, `waiting for.*ledger`)
	w.gate.up()

	g := w.closed(deadline(t), id, "failed")
	found := w.incidents("guest-panic")
	if len(found) != 1 || found[0].Incident.Claim != before.Index || found[0].Incident.Machine != "app" || g.Index != before.Index {
		t.Errorf("claim %d, incidents %+v\n%s", g.Index, found, w.story())
	}
	mustZos(t, "audit", "--ledger", w.path("ledger"), "--root", w.root, "chain")
}
