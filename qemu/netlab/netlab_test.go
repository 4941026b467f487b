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

// wanted are the tests of agent/uplink that make links and addresses.
var wanted = []string{"TestLACP", "TestFromBondToPlain", "TestActiveBackupOnVLAN",
	"TestCableMoves", "TestLinkWithoutLedger", "TestByAddress", "TestV6Only", "TestManaged", "TestStatic", "TestRollBack", "TestNothingOfTheOldPlanStays"}

// TestInNodeKernel runs the tests of agent/uplink on the node's kernel: bonds and
// VLANs, DHCP, what routers advertise, static addresses, and the way back to what
// worked. None of them may skip there.
func TestInNodeKernel(t *testing.T) {
	if os.Getenv("ZOS_NETLAB") == "" {
		t.Skip("SKIP TestInNodeKernel: the uplink on the node's kernel takes minutes under emulation; run it with ZOS_NETLAB=1 go test ./qemu/netlab")
	}
	var wants []modules.Want
	for _, name := range []string{"af_packet", "veth", "bridge", "8021q", "bonding", "button"} {
		wants = append(wants, modules.Want{Name: name, Optional: name == "af_packet" || name == "button", Load: true})
	}
	nodes, ok := modules.Named("network") // its packet filter
	if !ok {
		t.Fatal("nodes have no set of modules for networks")
	}
	wants = append(wants, nodes.Wants...)
	const program = "/uplink.test"
	l := lab.Start(t, lab.Parts{
		Repo: "../..", Modules: wants, Programs: []string{"ip", "dnsmasq", "radvd"},
		Files: map[string][]byte{program: lab.Build(t, "test", "-c", "github.com/zos-node/zos/agent/uplink")},
	}, qemu.Options{MemoryMiB: 1024, Log: os.Getenv("ZOS_NETLAB_LOG")}, 20*time.Minute)
	all := l.Must(program, "-test.v", "-test.run", "^("+strings.Join(wanted, "|")+")$")
	if strings.Contains(all, "--- SKIP") {
		t.Errorf("on the node's kernel:\n%s", all)
	}
	for _, name := range wanted {
		if !strings.Contains(all, "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass:\n%s", name, all)
		}
	}
	for line := range strings.Lines(all) {
		if strings.Contains(line, "--- ") {
			t.Log(strings.TrimSpace(line))
		}
	}
}
