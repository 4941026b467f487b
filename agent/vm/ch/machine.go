// SPDX-License-Identifier: Apache-2.0

package ch

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/proc"
)

// Machine is a VM under Cloud Hypervisor.
type Machine struct {
	process *proc.Process
	api     *api
}

var _ vm.VM = (*Machine)(nil)

// ownWords are what v53 puts behind a guest's command line, by architecture,
// where the machine has a serial port: on arm64 where its registers are, for
// what a kernel says before it has drivers.
var ownWords = map[string]string{"arm64": "earlycon=pl011,mmio,0x09000000"}

func (d *Driver) machine(p *proc.Process, cfg vm.Config) *Machine {
	return &Machine{process: p, api: newAPI(filepath.Join(cfg.Dir, apiSocket))}
}

// PID implements vm.VM.
func (m *Machine) PID() int { return m.process.PID() }

// Events implements vm.VM.
func (m *Machine) Events() <-chan vm.Event { return m.process.Events() }

// Kill implements vm.VM.
func (m *Machine) Kill(ctx context.Context) error { return m.process.Kill(ctx) }

// Console is the last of what the guest's kernel said.
func (m *Machine) Console() string { return m.process.SerialTail() }

// PowerButton presses the guest's power button.
func (m *Machine) PowerButton(ctx context.Context) error { return m.api.powerButton(ctx) }

// Counters are the devices' counters.
func (m *Machine) Counters(ctx context.Context) (map[string]map[string]uint64, error) {
	return m.api.counters(ctx)
}

func (m *Machine) abandon() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return m.Kill(ctx)
}

// Info implements vm.VM. vm.info tells what Cloud Hypervisor was configured
// with; which tap is behind an inherited fd, and how the process is held, only
// the kernel tells.
func (m *Machine) Info(ctx context.Context) (vm.Running, error) {
	info, err := m.api.info(ctx)
	if err != nil {
		return vm.Running{}, err
	}
	c := info.Config
	if info.State != "Running" {
		return vm.Running{}, fmt.Errorf("cloud-hypervisor: the VM is %s", info.State)
	}
	r := vm.Running{VCPUs: c.CPUs.Boot, MemoryMiB: int(info.MemorySize >> 20),
		Kernel: c.Payload.Kernel, Initramfs: c.Payload.Initramfs, Cmdline: c.Payload.Cmdline, CmdlineAdded: ownWords[runtime.GOARCH]}
	if c.Vsock != nil {
		r.CID = c.Vsock.CID
	}
	for _, d := range c.Disks {
		r.Disks = append(r.Disks, vm.Disk{Path: d.Path, ReadOnly: d.ReadOnly, Serial: d.Serial})
	}
	taps, err := m.process.Taps()
	if err != nil {
		return vm.Running{}, err
	}
	if len(taps) != len(c.Net) {
		return vm.Running{}, fmt.Errorf("cloud-hypervisor: %d network devices, %d taps", len(c.Net), len(taps))
	}
	for i, n := range c.Net {
		r.NICs = append(r.NICs, vm.NIC{TapName: taps[i].Name, MAC: n.MAC, MTU: taps[i].MTU})
	}
	if r.Hardening, err = m.hardening(info); err != nil {
		return vm.Running{}, err
	}
	return r, nil
}

// hardening adds Cloud Hypervisor's own to what the kernel tells, and fails
// when something that was asked for is not so.
func (m *Machine) hardening(info vmInfo) (map[string]string, error) {
	h, err := m.process.Hardening()
	if err != nil {
		return nil, err
	}
	h["landlockOwn"] = strconv.FormatBool(info.Config.Landlock)
	for _, bad := range []struct {
		is   bool
		what string
	}{
		{!info.Config.Landlock, "landlock is off"},
		{!info.Config.PVPanic, "pvpanic is off"},
		{info.Config.CPUs.Nested, "nested virtualisation is on"},
		{info.Config.CPUs.Max != info.Config.CPUs.Boot, "processors can be added"},
		{info.Config.Memory.Shared, "guest memory is shared"},
	} {
		if bad.is {
			err = errors.Join(err, fmt.Errorf("cloud-hypervisor: %s", bad.what))
		}
	}
	return h, err
}
