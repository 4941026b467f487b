// SPDX-License-Identifier: Apache-2.0

package ch

import (
	"fmt"
	"path/filepath"

	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/proc"
)

// args is the whole VM. Defaults of Cloud Hypervisor that would add something
// are turned off by name: a terminal as console, nested virtualisation,
// guessing the format of a disk.
func args(c vm.Config) []string {
	in := func(name string) string { return filepath.Join(c.Dir, name) }
	a := []string{
		"--api-socket", fmt.Sprintf("fd=%d", proc.FirstFD),
		"--event-monitor", "path=" + in(proc.EventsFile),
		"--seccomp", "true",
		"--landlock",
		"--landlock-rules", "path=" + in(vsockDir) + ",access=rw",
		"--kernel", c.Kernel,
		"--initramfs", c.Initramfs,
		"--cmdline", c.Cmdline,
		"--cpus", fmt.Sprintf("boot=%d,max=%d,nested=off", c.VCPUs, c.VCPUs),
		"--memory", fmt.Sprintf("size=%dM,shared=off", c.MemoryMiB),
		"--rng", "src=/dev/urandom",
		"--vsock", fmt.Sprintf("cid=%d,socket=%s", c.CID, in(vsockDir+"/"+vsockSocket)),
		"--serial", "file=" + in(proc.SerialFile),
		"--console", "off",
		"--pvpanic",
	}
	if len(c.Disks) > 0 {
		a = append(a, "--disk")
		for _, d := range c.Disks {
			a = append(a, fmt.Sprintf("path=%s,readonly=%s,image_type=raw,serial=%s", d.Path, onOff(d.ReadOnly), d.Serial))
		}
	}
	if len(c.NICs) > 0 {
		a = append(a, "--net")
		for i, n := range c.NICs {
			a = append(a, fmt.Sprintf("fd=%d,mac=%s", proc.FirstFD+1+i, n.MAC))
		}
	}
	return a
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// rules is the file system as Cloud Hypervisor sees it. Its own ruleset, on
// top, always gives write access to disks; this one does not.
func rules(program string, c vm.Config) []proc.Rule {
	r := []proc.Rule{
		{Path: program, Exec: true},
		{Path: c.Kernel}, {Path: c.Initramfs},
		{Path: c.Dir, Write: true},
		{Path: "/dev/kvm", Write: true},
		{Path: "/dev/urandom"},
	}
	if len(c.NICs) > 0 {
		// Never opened, the taps are inherited; Cloud Hypervisor names it in its
		// own ruleset and has to find it for that.
		r = append(r, proc.Rule{Path: "/dev/net/tun"})
	}
	for _, d := range c.Disks {
		r = append(r, proc.Rule{Path: d.Path, Write: !d.ReadOnly})
	}
	return r
}
