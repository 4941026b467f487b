// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/plan"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/guest/wire"
)

func planned() *plan.Machine {
	return &plan.Machine{Name: "web", Verity: plan.Verity{Root: strings.Repeat("a", 64), Blocks: 10},
		VM: vm.Config{VCPUs: 2, MemoryMiB: 128, Kernel: "/k", Initramfs: "/i", Cmdline: "quiet zos.verity=x", CID: 7,
			Disks: []vm.Disk{{Path: "/d", ReadOnly: true, Serial: "root"}}, NICs: []vm.NIC{{TapName: "zt0", MAC: "02:00:00:00:00:01", MTU: 1500}}},
		Guest: wire.Config{Files: []wire.File{{Path: "/etc/x", Content: []byte("x")}}, Interfaces: []wire.Interface{{MAC: "02:00:00:00:00:01", Address: "10.0.0.2/24"}},
			Mounts: []wire.Mount{{Type: "tmpfs", Path: "/tmp"}, {Type: "volume", Path: "/data", ReadOnly: true}}}}
}

func reported() *wire.Report {
	return &wire.Report{Cmdline: "quiet zos.verity=x\n",
		Verity: wire.Verity{Status: "V", Table: "0 80 verity 1 254:0 254:0 4096 4096 10 10 sha256 " + strings.Repeat("a", 64) + " - 2 panic_on_corruption panic_on_error"},
		Mounts: []string{"/ overlay ro,relatime", "/proc proc rw,nosuid", "/proc/sys proc ro", "/sys sysfs ro", "/dev tmpfs rw", "/dev/pts devpts rw", "/tmp tmpfs rw,noexec", "/data ext4 ro,nosuid"},
		Addrs:  []string{"02:00:00:00:00:01 10.0.0.2/24"},
		Files:  map[string]string{"/etc/x": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}}
}

func TestCompareGuest(t *testing.T) {
	if err := CompareGuest(planned(), "", reported()); err != nil {
		t.Fatal(err)
	}
	const own = "earlycon=x" // of a hypervisor that adds it to each
	r := reported()
	r.Cmdline = planned().VM.Cmdline + " " + own + "\n"
	if err := CompareGuest(planned(), own, r); err != nil {
		t.Error(err)
	}
	for _, words := range []string{"", own + " " + own, own + " init=/bin/sh"} {
		if r.Cmdline = planned().VM.Cmdline + " " + words; CompareGuest(planned(), own, r) == nil {
			t.Errorf("%q is as good as %q", words, own)
		}
	}
	for want, change := range map[string]func(*wire.Report){
		"command line":       func(r *wire.Report) { r.Cmdline += " init=/bin/sh" },
		"verity status":      func(r *wire.Report) { r.Verity.Status = "C" },
		"verity table":       func(r *wire.Report) { r.Verity.Table = strings.Replace(r.Verity.Table, "aaa", "aab", 1) },
		`verity table is ""`: func(r *wire.Report) { r.Verity.Table = "" },
		"panic_on": func(r *wire.Report) {
			r.Verity.Table = strings.Replace(r.Verity.Table, "panic_on_error", "ignore_corruption", 1)
		},
		"254:1":             func(r *wire.Report) { r.Verity.Table = strings.Replace(r.Verity.Table, "254:0 4096", "254:1 4096", 1) },
		"read-only overlay": func(r *wire.Report) { r.Mounts[0] = "/ overlay rw" },
		"its root":          func(r *wire.Report) { r.Mounts = r.Mounts[1:] },
		"not in the plan":   func(r *wire.Report) { r.Mounts = append(r.Mounts, "/usr tmpfs rw") },
		"/tmp, planned":     func(r *wire.Report) { r.Mounts[6] = "/other tmpfs ro" },
		"planned read-only": func(r *wire.Report) { r.Mounts[7] = "/data ext4 rw" },
		"/sys sysfs rw":     func(r *wire.Report) { r.Mounts[3] = "/sys sysfs rw" },
		"addresses":         func(r *wire.Report) { r.Addrs = append(r.Addrs, "02:00:00:00:00:01 10.0.0.9/24") },
		"file /etc/x":       func(r *wire.Report) { r.Files["/etc/x"] = strings.Repeat("0", 64) },
		"mount line":        func(r *wire.Report) { r.Mounts[1] = "broken" },
	} {
		r := reported()
		change(r)
		if err := CompareGuest(planned(), "", r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestCompareVM(t *testing.T) {
	running := func() vm.Running {
		c := planned().VM
		return vm.Running{VCPUs: c.VCPUs, MemoryMiB: c.MemoryMiB, Kernel: c.Kernel, Initramfs: c.Initramfs, Cmdline: c.Cmdline, CID: c.CID, Disks: c.Disks, NICs: c.NICs}
	}
	if err := CompareVM(planned().VM, running()); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*vm.Running){
		"vcpus is 3":           func(r *vm.Running) { r.VCPUs = 3 },
		"memoryMiB":            func(r *vm.Running) { r.MemoryMiB = 129 },
		"kernel is /other":     func(r *vm.Running) { r.Kernel = "/other" },
		"initramfs is /other":  func(r *vm.Running) { r.Initramfs = "/other" },
		"cmdline is":           func(r *vm.Running) { r.Cmdline += " debug" },
		"vsock cid":            func(r *vm.Running) { r.CID = 9 },
		"number of disks is 2": func(r *vm.Running) { r.Disks = append(r.Disks, vm.Disk{Serial: "more"}) },
		"disk root is":         func(r *vm.Running) { r.Disks = []vm.Disk{{Path: "/d", Serial: "root"}} },
		"not there":            func(r *vm.Running) { r.NICs = []vm.NIC{{MAC: "x"}} },
		"zt9":                  func(r *vm.Running) { r.NICs = []vm.NIC{{TapName: "zt9", MAC: "02:00:00:00:00:01", MTU: 1500}} },
	} {
		r := running()
		change(&r)
		if err := CompareVM(planned().VM, r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
