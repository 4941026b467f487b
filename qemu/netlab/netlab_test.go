// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/kernel/modules"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/qemu/lab"
)

// wanted are the tests that make links and addresses, by their packages.
var wanted = []struct {
	pkg   string
	tests []string
}{
	{"agent/uplink", []string{"TestLACP", "TestFromBondToPlain", "TestActiveBackupOnVLAN",
		"TestCableMoves", "TestLinkWithoutLedger", "TestByAddress", "TestV6Only", "TestManaged", "TestStatic", "TestRollBack", "TestNothingOfTheOldPlanStays"}},
	{"agent/uplink/dhcp4", []string{"TestTimersOnTheWire"}}, // renewing, rebinding, expiry
	{"agent/uplink/dhcp6", []string{"TestDnsmasq"}},         // the same
	{"agent/uplink/ra", []string{"TestRadvd"}},
}

// TestInNodeKernel runs the uplink's tests on the node's kernel: bonds and VLANs,
// DHCP and its timers, what routers advertise, static addresses, and the way back
// to what worked. None of them may skip there.
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
	files := map[string][]byte{}
	for _, w := range wanted {
		files["/"+path.Base(w.pkg)+".test"] = lab.Build(t, "test", "-c", "github.com/zos-node/zos/"+w.pkg)
	}
	l := lab.Start(t, lab.Parts{Repo: "../..", Modules: wants, Programs: []string{"ip", "dnsmasq", "radvd"}, Files: files},
		qemu.Options{MemoryMiB: 1024, Log: os.Getenv("ZOS_NETLAB_LOG")}, 20*time.Minute)
	for _, w := range wanted {
		all := l.Must("/"+path.Base(w.pkg)+".test", "-test.v", "-test.run", "^("+strings.Join(w.tests, "|")+")$")
		if strings.Contains(all, "--- SKIP") {
			t.Errorf("on the node's kernel:\n%s", all)
		}
		for _, name := range w.tests {
			if !strings.Contains(all, "--- PASS: "+name+" ") {
				t.Errorf("%s of %s did not pass:\n%s", name, w.pkg, all)
			}
		}
		for line := range strings.Lines(all) {
			if strings.Contains(line, "--- ") {
				t.Log(path.Base(w.pkg), strings.TrimSpace(line))
			}
		}
	}
}
