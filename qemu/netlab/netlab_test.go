// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/kernel/modules"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/qemu/lab"
)

const wanted = "^(TestLACP|TestFromBondToPlain|TestActiveBackupOnVLAN)$"

// TestInNodeKernel runs the tests of bonds and VLANs of agent/uplink on the
// node's kernel. None of them may skip there.
func TestInNodeKernel(t *testing.T) {
	if os.Getenv("ZOS_NETLAB") == "" {
		t.Skip("SKIP TestInNodeKernel: bonds and VLANs on the node's kernel take minutes under emulation; run it with ZOS_NETLAB=1 go test ./qemu/netlab")
	}
	var wants []modules.Want
	for _, name := range []string{"af_packet", "veth", "bridge", "8021q", "bonding", "button"} {
		wants = append(wants, modules.Want{Name: name, Optional: name == "af_packet" || name == "button", Load: true})
	}
	const program = "/uplink.test"
	l := lab.Start(t, lab.Parts{
		Repo: "../..", Modules: wants, Programs: []string{"ip", "dnsmasq"},
		Files: map[string][]byte{program: lab.Build(t, "test", "-c", "github.com/zos-node/zos/agent/uplink")},
	}, qemu.Options{MemoryMiB: 1024, Log: os.Getenv("ZOS_NETLAB_LOG")}, 9*time.Minute)
	all := l.Must(program, "-test.v", "-test.run", wanted)
	if strings.Contains(all, "--- SKIP") || strings.Count(all, "--- PASS: Test") < 3 {
		t.Errorf("on the node's kernel:\n%s", all)
	}
	for line := range strings.Lines(all) {
		if strings.Contains(line, "--- ") {
			t.Log(strings.TrimSpace(line))
		}
	}
}
