// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/hex"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/deploy"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/spec"
)

// armLimit is for a start of a guest whose processor is emulated twice over, on a
// machine that does other things as well.
const armLimit = 20 * time.Minute

// TestArm does the main job on the other architecture: a node on QEMU's arm64
// machine, whose processor has EL2, claims a signed deployment, and runs it under
// Cloud Hypervisor; and what its guest reads is checked there as well. Nothing of
// the host is arm64. Firmware and a disk are TestArmFromDisk's. A hypervisor that is not the
// release's needs Debian's qemu-user besides.
func TestArm(t *testing.T) {
	armTools(t)
	w := newWorldOf(t, "qemu-arm64")
	begun := time.Now()
	n := w.boot("cloud-hypervisor", "arm", false, w.mirror())
	took := func(what string) {
		t.Logf("%s after %.0f s, of which the emulator had a processor for %.1f s", what, time.Since(begun).Seconds(), n.CPUTime().Seconds())
	}
	long := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), armLimit)
		t.Cleanup(cancel)
		return ctx
	}
	if _, _, _, err := n.Console.Expect(long(), 0, regexp.MustCompile(`msg="following the ledger"`)); err != nil {
		t.Fatal(err)
	}
	took("the agent follows the ledger")

	id := w.register(w.armDeployment("arm"))
	g := w.running(long(), id)
	took("the deployment runs")
	if body, err := page(n.gateway, "/"); err != nil || !strings.Contains(body, `"host":"app"`) {
		t.Fatalf("page: %q, %v", body, err)
	}
	var phases []string
	for _, r := range w.client.State().Records(g.Index) {
		phases = append(phases, r.Record.Phase)
		t.Logf("%-18s %-7s %6d ms  %s", r.Record.Phase, r.Record.Result, r.Record.DurationMs, r.Record.Detail)
	}
	if !slices.Equal(phases, everyPhase) {
		t.Errorf("phases %v\nwant   %v", phases, everyPhase)
	}
	if node := w.client.State().Nodes()[0]; node.Capacity.Arch != "arm64" || node.Capacity.Hypervisor.Name != "cloud-hypervisor" {
		t.Errorf("the node says it is %+v", node.Capacity)
	}
	n.keyIs(t, "memory") // it has no disk at all
	if n := len(n.guests(t)); n != 1 {
		t.Errorf("inside run %d hypervisors", n)
	}
	mustZos(t, "audit", "--ledger", w.path("ledger"), "--root", w.root, "arm")

	// A byte that the guest has not read yet is changed behind its check. Its
	// kernel has no pvpanic: that it panicked is told by its console and its reset.
	n.fault(t, map[string]any{"do": "flip", "file": disks, "pattern": hex.EncodeToString(canaryBytes())}, nil)
	if body, err := page(n.gateway, "/canary"); err == nil && strings.Contains(body, string(canaryBytes())) {
		t.Fatal("the guest served the block although it is not what was signed")
	}
	w.closed(long(), id, "failed")
	took("the altered block has ended it")
	if found := w.incidents(deploy.IncidentPanic); len(found) != 1 || !strings.Contains(found[0].Incident.Detail, "is not what the hash tree says of it") {
		t.Errorf("incidents: %+v\n%s", found, w.story())
	}
	n.nothingRuns(t)

	// And it goes on: the file is in quarantine, and fetched anew.
	again := w.register(w.armDeployment("again"))
	w.running(long(), again)
	w.stop(again, "again")
	w.closed(long(), again, "stopped")
	n.nothingRuns(t)
	// Without firmware there is no ACPI, and so no power button.
	took("another one ran and ended")
}

// armTools skips what is not asked for, or lacks the emulator or the hypervisor.
func armTools(t *testing.T) {
	t.Helper()
	if os.Getenv("ZOS_BOOT") != "all" {
		t.Skipf("SKIP %s: part of make test-boot", t.Name())
	}
	if _, err := exec.LookPath(qemu.Emulator("arm64")); err != nil {
		t.Skipf("SKIP %s: %v: install Debian's package qemu-system-arm", t.Name(), err)
	}
	if err := haveCloudHypervisor("arm64"); err != nil {
		t.Skipf("SKIP %s: no Cloud Hypervisor for arm64 (%s=/path makes it run): %v", t.Name(), kernel.Variable("arm64"), err)
	}
}

// armDeployment is deployment with patience.
func (w *world) armDeployment(name string) *spec.Deployment {
	d := w.deployment(name)
	h := &d.Machines[0].Health
	h.IntervalMs, h.TimeoutMs, h.DeadlineMs, h.Failures = 1000, 10_000, 300_000, 60
	return d
}
