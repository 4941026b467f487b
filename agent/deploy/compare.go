// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/zos-node/zos/agent/plan"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/guest/wire"
)

// CompareVM holds what the hypervisor says that it runs against the plan. The
// error lists every difference.
func CompareVM(want vm.Config, have vm.Running) error {
	var errs []error
	differ := func(what string, w, h any) {
		errs = append(errs, fmt.Errorf("%s is %v, planned %v", what, h, w))
	}
	for _, c := range []struct {
		what string
		w, h any
	}{
		{"vcpus", want.VCPUs, have.VCPUs}, {"memoryMiB", want.MemoryMiB, have.MemoryMiB},
		{"kernel", want.Kernel, have.Kernel}, {"initramfs", want.Initramfs, have.Initramfs},
		{"cmdline", want.Cmdline, have.Cmdline}, {"vsock cid", want.CID, have.CID},
		{"number of disks", len(want.Disks), len(have.Disks)}, {"number of NICs", len(want.NICs), len(have.NICs)},
	} {
		if c.w != c.h {
			differ(c.what, c.w, c.h)
		}
	}
	for _, w := range want.Disks {
		i := slices.IndexFunc(have.Disks, func(h vm.Disk) bool { return h.Serial == w.Serial })
		switch {
		case i < 0:
			differ("disk "+w.Serial, w.Path, "not there")
		case have.Disks[i] != w:
			differ("disk "+w.Serial, w, have.Disks[i])
		}
	}
	for _, w := range want.NICs {
		i := slices.IndexFunc(have.NICs, func(h vm.NIC) bool { return h.MAC == w.MAC })
		switch {
		case i < 0:
			differ("NIC "+w.MAC, w.TapName, "not there")
		case have.NICs[i].TapName != w.TapName || have.NICs[i].MTU != w.MTU:
			differ("NIC "+w.MAC, fmt.Sprintf("%s MTU %d", w.TapName, w.MTU), fmt.Sprintf("%s MTU %d", have.NICs[i].TapName, have.NICs[i].MTU))
		}
	}
	return errors.Join(errs...)
}

const sectorsPerBlock = 8

// CompareGuest holds what the guest's own kernel says against the plan; added is
// what its hypervisor puts behind each command line.
func CompareGuest(want *plan.Machine, added string, have *wire.Report) error {
	var errs []error
	cmdline := strings.TrimSpace(want.VM.Cmdline + " " + added)
	if got := strings.TrimSpace(have.Cmdline); got != cmdline {
		errs = append(errs, fmt.Errorf("guest's command line is %q, planned %q", got, cmdline))
	}
	return errors.Join(append(errs, compareVerity(want.Verity, have.Verity), compareMounts(want.Guest.Mounts, have.Mounts),
		compareAddrs(want.Guest.Interfaces, have.Addrs), compareFiles(want.Guest.Files, have.Files))...)
}

// compareVerity reads "0 <sectors> verity 1 <dev> <dev> 4096 4096 <blocks>
// <hash start> sha256 <root> <salt> <n> <options>".
func compareVerity(want plan.Verity, have wire.Verity) error {
	if have.Status != "V" {
		return fmt.Errorf("guest's verity status is %q, want V", have.Status)
	}
	f := strings.Fields(have.Table)
	const fixed = 13
	if len(f) < fixed || f[4] != f[5] {
		return fmt.Errorf("guest's verity table is %q", have.Table)
	}
	wanted := fmt.Sprintf("0 %d verity 1 %s %s 4096 4096 %d %d sha256 %s -", want.Blocks*sectorsPerBlock, f[4], f[4], want.Blocks, want.Blocks, want.Root)
	options := slices.Sorted(slices.Values(f[fixed:]))
	if strings.Join(f[:fixed], " ") != wanted || !slices.Equal(options, []string{"2", "panic_on_corruption", "panic_on_error"}) {
		return fmt.Errorf("guest's verity table is %q, planned %q with panic_on_corruption panic_on_error", have.Table, wanted)
	}
	return nil
}

// compareMounts wants a read-only root, every planned mount, and nothing else
// that a process could write files to.
func compareMounts(want []wire.Mount, have []string) error {
	var errs []error
	seen := map[string]string{}
	for _, line := range have {
		f := strings.Fields(line)
		if len(f) < 3 {
			return fmt.Errorf("guest's mount line %q", line)
		}
		path, kind, options := f[0], f[1], strings.Split(f[2], ",")
		seen[path] = kind // the last one on a path is what is seen there
		writable := slices.Contains(options, "rw")
		i := slices.IndexFunc(want, func(m wire.Mount) bool { return m.Path == path })
		switch {
		case path == "/":
			if kind != "overlay" || writable {
				errs = append(errs, fmt.Errorf("guest's root is %q, want a read-only overlay", line))
			}
		case i >= 0:
			if want[i].ReadOnly && writable {
				errs = append(errs, fmt.Errorf("guest's mount %q is writable, planned read-only", line))
			}
		case writable && !system(path):
			errs = append(errs, fmt.Errorf("guest's mount %q is not in the plan", line))
		}
	}
	if _, ok := seen["/"]; !ok {
		errs = append(errs, errors.New("guest does not report its root"))
	}
	for _, m := range want {
		kind := "tmpfs"
		if m.Type == "volume" {
			kind = "ext4"
		}
		if seen[m.Path] != kind {
			errs = append(errs, fmt.Errorf("guest has %q on %s, planned %s (a path through a symlink of the image must be written as where it leads)", seen[m.Path], m.Path, kind))
		}
	}
	return errors.Join(errs...)
}

// system paths are the guest init's own; /sys is read-only in any case.
func system(path string) bool {
	for _, p := range []string{"/proc", "/dev"} {
		if path == p || strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return false
}

func compareAddrs(want []wire.Interface, have []string) error {
	var planned []string
	for _, i := range want {
		planned = append(planned, i.MAC+" "+i.Address)
	}
	slices.Sort(planned)
	got := slices.Sorted(slices.Values(have))
	if !slices.Equal(planned, got) {
		return fmt.Errorf("guest's addresses are %q, planned %q", got, planned)
	}
	return nil
}

func compareFiles(want []wire.File, have map[string]string) error {
	var errs []error
	for _, f := range want {
		sum := sha256.Sum256(f.Content)
		if w := hex.EncodeToString(sum[:]); have[f.Path] != w {
			errs = append(errs, fmt.Errorf("guest's file %s has SHA-256 %q, planned %q", f.Path, have[f.Path], w))
		}
	}
	return errors.Join(errs...)
}
