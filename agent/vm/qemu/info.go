// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/zos-node/zos/agent/vm"
)

// Info implements vm.VM, from QEMU's object tree: what its devices are, not
// what its arguments were.
func (m *Machine) Info(ctx context.Context) (vm.Running, error) {
	var r vm.Running
	if err := m.ask(ctx, func(q *qmp) error { return m.read(q, &r) }); err != nil {
		return vm.Running{}, err
	}
	taps, err := m.process.Taps()
	if err != nil {
		return vm.Running{}, err
	}
	if len(taps) != len(r.NICs) {
		return vm.Running{}, fmt.Errorf("qemu: %d network devices, %d taps", len(r.NICs), len(taps))
	}
	for i := range r.NICs {
		r.NICs[i].TapName, r.NICs[i].MTU = taps[i].Name, taps[i].MTU
	}
	if r.Hardening, err = m.process.Hardening(); err != nil {
		return vm.Running{}, err
	}
	argv, err := m.process.Args()
	if err != nil {
		return vm.Running{}, err
	}
	if !sandboxed(argv) {
		return vm.Running{}, errors.New("qemu: its sandbox is off")
	}
	r.Hardening["sandbox"] = "on"
	return r, nil
}

func (m *Machine) read(q *qmp, r *vm.Running) error {
	var status struct{ Status string }
	if err := q.call("query-status", nil, &status); err != nil {
		return err
	}
	if status.Status != "running" {
		return fmt.Errorf("qemu: the VM is %s", status.Status)
	}
	for property, out := range map[string]*string{"kernel": &r.Kernel, "initrd": &r.Initramfs, "append": &r.Cmdline} {
		if err := q.get("/machine", property, out); err != nil {
			return err
		}
	}
	var cpus []struct{}
	if err := q.call("query-cpus-fast", nil, &cpus); err != nil {
		return err
	}
	r.VCPUs = len(cpus)
	var memory struct {
		Base    int64 `json:"base-memory"`
		Plugged int64 `json:"plugged-memory"`
	}
	if err := q.call("query-memory-size-summary", nil, &memory); err != nil {
		return err
	}
	r.MemoryMiB = int((memory.Base + memory.Plugged) >> 20)
	var devices []struct{ Name, Type string }
	if err := q.call("qom-list", map[string]string{"path": "/machine/peripheral"}, &devices); err != nil {
		return err
	}
	return readDevices(q, devices, r)
}

// readDevices finds disks, network devices and the vsock device among all
// that have an id, also such as nobody asked for.
func readDevices(q *qmp, devices []struct{ Name, Type string }, r *vm.Running) error {
	disks, nics := map[int]string{}, map[int]string{}
	for _, d := range devices {
		name, ok := strings.CutPrefix(d.Type, "child<")
		if !ok {
			continue // the "type" property
		}
		path := "/machine/peripheral/" + d.Name
		switch strings.TrimSuffix(name, ">") {
		case "virtio-blk-pci":
			i, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(d.Name, "disk"), "-dev"))
			if err != nil {
				return fmt.Errorf("qemu: a disk named %q", d.Name)
			}
			disks[i] = path
		case "virtio-net-pci":
			i, err := strconv.Atoi(strings.TrimPrefix(d.Name, "nic"))
			if err != nil {
				return fmt.Errorf("qemu: a network device named %q", d.Name)
			}
			nics[i] = path
		case "vhost-vsock-pci":
			if err := q.get(path, "guest-cid", &r.CID); err != nil {
				return err
			}
		default:
			return fmt.Errorf("qemu: a device of type %q that nobody asked for", name)
		}
	}
	if err := readDisks(q, disks, r); err != nil {
		return err
	}
	for i := range len(nics) {
		var n vm.NIC
		if err := q.get(nics[i], "mac", &n.MAC); err != nil {
			return err
		}
		n.MAC = strings.ToLower(n.MAC)
		r.NICs = append(r.NICs, n)
	}
	return nil
}

func readDisks(q *qmp, disks map[int]string, r *vm.Running) error {
	var blocks []struct {
		QDev     string
		Inserted *struct {
			File   string
			RO     bool
			Driver string `json:"drv"`
		}
	}
	if err := q.call("query-block", nil, &blocks); err != nil {
		return err
	}
	for i := range len(disks) {
		d, found := vm.Disk{}, false
		if err := q.get(disks[i], "serial", &d.Serial); err != nil {
			return err
		}
		for _, b := range blocks {
			// qdev is the device's id or its whole path; a virtio device's
			// backend is a child of the PCI device.
			if b.Inserted == nil || !strings.Contains(b.QDev+"/", "/"+filepath.Base(disks[i])+"/") {
				continue
			}
			if b.Inserted.Driver != "raw" {
				return fmt.Errorf("qemu: disk %s is read as %s", d.Serial, b.Inserted.Driver)
			}
			d.Path, d.ReadOnly, found = b.Inserted.File, b.Inserted.RO, true
		}
		if !found {
			return fmt.Errorf("qemu: disk %s has no file", d.Serial)
		}
		r.Disks = append(r.Disks, d)
	}
	return nil
}
