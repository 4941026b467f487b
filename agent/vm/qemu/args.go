// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/proc"
)

// args is the whole VM: -nodefaults and -no-user-config, then each device by
// name. microvm with ACPI and PCIe has a power button, a real power-off, and
// takes the same virtio-pci devices as Cloud Hypervisor.
func args(c vm.Config, firmware string) []string {
	in := func(name string) string { return filepath.Join(c.Dir, name) }
	a := []string{
		"-M", "microvm,acpi=on,rtc=on,pcie=on",
		"-accel", "kvm",
		"-cpu", "host,vmx=off,svm=off", // no hypervisor in the guest
		"-smp", fmt.Sprintf("cpus=%d,maxcpus=%d", c.VCPUs, c.VCPUs),
		"-m", fmt.Sprintf("size=%dM", c.MemoryMiB),
		"-nodefaults", "-no-user-config", "-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-kernel", c.Kernel,
		"-initrd", c.Initramfs,
		"-append", c.Cmdline,
		// A guest that panicked stands still until the agent ends it.
		"-action", "reboot=shutdown,shutdown=poweroff,panic=pause",
		"-chardev", fmt.Sprintf("file,id=events,path=%s,input-path=%s", in(proc.EventsFile), in(qmpInput)),
		"-mon", "chardev=events,mode=control",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d,server=on,wait=off", proc.FirstFD),
		"-mon", "chardev=qmp,mode=control",
		"-chardev", "file,id=serial,path=" + in(proc.SerialFile),
		"-serial", "chardev:serial",
		"-device", "virtio-rng-pci",
		"-device", "pvpanic-pci",
		"-device", fmt.Sprintf("vhost-vsock-pci,id=vsock,guest-cid=%d", c.CID),
	}
	if firmware != "" {
		a = append(a, "-L", firmware)
	}
	for i, d := range c.Disks {
		node := fmt.Sprintf("disk%d", i)
		a = append(a,
			"-blockdev", fmt.Sprintf("driver=raw,node-name=%s,read-only=%s,auto-read-only=off,discard=unmap,file.driver=file,file.filename=%s",
				node, onOff(d.ReadOnly), d.Path),
			"-device", fmt.Sprintf("virtio-blk-pci,id=%s-dev,drive=%s,serial=%s", node, node, d.Serial))
	}
	for i, n := range c.NICs {
		a = append(a,
			"-netdev", fmt.Sprintf("tap,id=tap%d,fd=%d", i, proc.FirstFD+1+i),
			// romfile= : no network boot code in the guest.
			"-device", fmt.Sprintf("virtio-net-pci,id=nic%d,netdev=tap%d,mac=%s,romfile=", i, i, n.MAC))
	}
	return a
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// rules is the file system as QEMU sees it: it is linked dynamically, and
// loads firmware and, in Debian, its KVM accelerator as files.
func rules(program, firmware string, c vm.Config) []proc.Rule {
	r := []proc.Rule{
		{Path: program, Exec: true},
		{Path: "/usr/lib", Exec: true},
		{Path: "/lib64", Exec: true, Optional: true},
		{Path: "/lib", Exec: true, Optional: true},
		{Path: "/etc/ld.so.cache", Optional: true},
		{Path: c.Kernel}, {Path: c.Initramfs},
		{Path: c.Dir, Write: true},
		{Path: "/dev/kvm", Write: true},
		{Path: "/dev/vhost-vsock", Write: true},
		{Path: "/dev/urandom"},
		{Path: "/dev/null", Write: true},
	}
	if firmware != "" {
		r = append(r, proc.Rule{Path: firmware})
	} else {
		for _, dir := range []string{"qemu", "seabios"} {
			r = append(r, proc.Rule{Path: "/usr/share/" + dir, Optional: true})
		}
	}
	for _, d := range c.Disks {
		r = append(r, proc.Rule{Path: d.Path, Write: !d.ReadOnly})
	}
	return r
}

// sandboxed says whether a command line has QEMU's seccomp filter on.
func sandboxed(args []string) bool {
	for i, a := range args {
		if a == "-sandbox" && i+1 < len(args) {
			return strings.HasPrefix(args[i+1], "on,")
		}
	}
	return false
}
