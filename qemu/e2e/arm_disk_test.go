// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestArmFromDisk goes the whole way of an arm64 node: AAVMF finds systemd-boot on
// the board's disk image, which starts the UKI, whose agent has its seed from the
// boot partition, follows the ledger and runs a signed deployment at EL1, under a
// hypervisor at EL2. What happens to such a guest afterwards is TestArm's.
func TestArmFromDisk(t *testing.T) {
	armTools(t)
	w := newWorldOf(t, "qemu-arm64")
	begun := time.Now()
	n := w.boot("cloud-hypervisor", "armdisk", true, w.mirror())
	took := func(what string) {
		t.Logf("%s after %.0f s, of which the emulator had a processor for %.1f s", what, time.Since(begun).Seconds(), n.CPUTime().Seconds())
	}
	ctx, cancel := context.WithTimeout(context.Background(), armLimit)
	defer cancel()
	for _, line := range []string{
		`msg="boot trust".*`,           // through firmware
		`msg=seed .*from="?/dev/vda1:`, // from the partition that it was started from
		`msg="following the ledger"`,   //
	} {
		if _, _, _, err := n.Console.Expect(ctx, 0, regexp.MustCompile(line)); err != nil {
			t.Fatal(err)
		}
	}
	took("the agent follows the ledger")
	id := w.register(w.armDeployment("armdisk"))
	g := w.running(ctx, id)
	took("the deployment runs")
	if body, err := page(n.gateway, "/"); err != nil || !strings.Contains(body, `"host":"app"`) {
		t.Fatalf("page: %q, %v", body, err)
	}
	var phases []string
	for _, r := range w.client.State().Records(g.Index) {
		phases = append(phases, r.Record.Phase)
	}
	if !slices.Equal(phases, everyPhase) {
		t.Errorf("phases %v\nwant   %v", phases, everyPhase)
	}
	w.stop(id, "armdisk")
	w.closed(ctx, id, "stopped")
	n.nothingRuns(t)
	took("it has ended")
}
