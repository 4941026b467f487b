// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Accel is how QEMU runs a machine.
type Accel struct {
	Name string   // "kvm" or "tcg"
	Why  string   // for people: why this one
	Args []string // -M, -accel and -cpu
	// CPUs is 1 without KVM: emulated processors race when a kernel patches its
	// own code (as KVM inside does at each start of a guest), and on a machine
	// with two processors a second emulated one gains little.
	CPUs int
}

// tcgArgs emulate an AMD processor with nested paging, so that KVM works
// inside the machine on any host. The features that are taken away are those
// that no emulator has: QEMU would warn of each at every start.
var tcgArgs = []string{"-M", "q35", "-accel", "tcg,thread=multi", "-cpu",
	"EPYC,+svm,+npt,-rdseed,-sha-ni,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,-topoext,-nrip-save,-xsavec"}

var kvmArgs = []string{"-M", "q35", "-accel", "kvm", "-cpu", "host"}

// probeCode is a boot sector that writes 'K' to the first serial port and then
// asks QEMU's isa-debug-exit device to end the run. Only a processor that
// really executes guest code gets there.
var probeCode = []byte{
	0xba, 0xf8, 0x03, // mov dx, 0x3f8
	0xb0, 'K', // mov al, 'K'
	0xee,             // out dx, al
	0xba, 0xf4, 0x00, // mov dx, 0xf4
	0xb0, 0x01, // mov al, 1
	0xee,       // out dx, al
	0xf4,       // hlt
	0xeb, 0xfd, // jmp hlt
}

// probeLimit is long for a boot sector and short for a person.
const probeLimit = 3 * time.Second

// Probe tells KVM that works, also for guests of the machine's own, from KVM
// that only exists, and falls back to emulation.
func Probe(ctx context.Context, binary string) Accel {
	tcg := Accel{Name: "tcg", Args: tcgArgs, CPUs: 1}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		tcg.Why = "no usable /dev/kvm: " + err.Error()
		return tcg
	}
	f.Close()
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !(bytes.Contains(cpu, []byte(" vmx")) || bytes.Contains(cpu, []byte(" svm"))) {
		tcg.Why = "/dev/kvm exists, but the processor offers no virtualisation"
		return tcg
	}
	for _, module := range []string{"kvm_intel", "kvm_amd"} {
		nested, err := os.ReadFile(filepath.Join("/sys/module", module, "parameters/nested"))
		if err == nil && !strings.ContainsAny(string(nested), "1Yy") {
			tcg.Why = "/dev/kvm works, but " + module + " does not nest: guests of the node could not run"
			return tcg
		}
	}
	if err := probeRun(ctx, binary); err != nil {
		tcg.Why = "/dev/kvm exists, but a test machine did not run: " + err.Error()
		return tcg
	}
	return Accel{Name: "kvm", Why: "a test machine ran on /dev/kvm", Args: kvmArgs, CPUs: 2}
}

func probeRun(ctx context.Context, binary string) error {
	dir, err := os.MkdirTemp("", "zos-kvm-probe-")
	if err != nil {
		return fmt.Errorf("folder for the probe: %w", err)
	}
	defer os.RemoveAll(dir)
	sector := make([]byte, 512)
	copy(sector, probeCode)
	sector[510], sector[511] = 0x55, 0xaa
	disk := filepath.Join(dir, "boot")
	if err := os.WriteFile(disk, sector, 0o600); err != nil {
		return fmt.Errorf("boot sector: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	args := append(append([]string{}, kvmArgs...), "-m", "16", "-nodefaults", "-no-user-config", "-display", "none",
		"-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-drive", "file="+disk+",format=raw,if=ide")
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return fmt.Errorf("nothing after %s", probeLimit)
	}
	if !bytes.Contains(out, []byte("K")) {
		return fmt.Errorf("it said %q: %w", out, err)
	}
	return nil
}
