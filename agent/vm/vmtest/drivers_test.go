// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/ch"
	"github.com/zos-node/zos/agent/vm/qemu"
	"github.com/zos-node/zos/guest/process"
)

// hypervisor is one driver under test. open gives a new Driver value, as a
// restarted agent has one.
type hypervisor struct {
	name string
	path string
	open func() vm.Driver
}

func hypervisors() []hypervisor {
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	return []hypervisor{
		{ch.Name, chPath, func() vm.Driver { return ch.New(chPath, log) }},
		{qemu.Name, qemuPath, func() vm.Driver { return qemu.New(qemuPath, "", log) }},
	}
}

// Where the outer machine has the programs and the guest's parts.
const (
	chPath   = "/bin/cloud-hypervisor"
	qemuPath = "/usr/bin/qemu-system-x86_64"
	partsDir = "/vm"
)

// TestDrivers is the suite.
func TestDrivers(t *testing.T) {
	if os.Getenv("ZOS_VMTEST") != "inside" {
		t.Skip("SKIP drivers: they run inside the machine that TestNested boots")
	}
	p := loadParts(t)
	var cids atomic.Uint32
	for _, h := range hypervisors() {
		t.Run(h.name, func(t *testing.T) {
			if _, err := os.Stat(h.path); err != nil {
				t.Skipf("SKIP %s: no binary; set CLOUD_HYPERVISOR=/path", h.name)
			}
			type one struct {
				name string
				run  func(*suite)
			}
			cases := []one{
				{"Version", (*suite).version},
				{"Life", (*suite).life},
				{"PowerButton", (*suite).powerButton},
				{"OutOfMemory", (*suite).outOfMemory},
				{"NoRoot", (*suite).noRoot},
				{"WrongRoot", (*suite).wrongRoot},
				{"CorruptBlock", (*suite).corruptBlock},
				{"Reboot", (*suite).reboot},
				{"CannotStart", (*suite).cannotStart},
			}
			if p.Attacks {
				cases = []one{
					{"Inside", func(s *suite) { s.fromInside(nil) }},
					{"InsideWithEverything", func(s *suite) { s.fromInside(process.Contained()) }},
				}
				for _, a := range attacks {
					cases = append(cases, one{"Attack/" + a.name, func(s *suite) { s.attacked(a) }})
				}
			}
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					begun := time.Now()
					c.run(&suite{T: t, parts: p, hypervisor: h, cids: &cids})
					t.Logf("took %s", time.Since(begun).Round(10*time.Millisecond))
				})
			}
		})
	}
}
