// SPDX-License-Identifier: Apache-2.0

// Package qemu runs VMs under QEMU's microvm machine, for nodes whose image
// has no Cloud Hypervisor.
//
// QEMU has two monitors here. One is a socket, to ask. The other is a pair of
// files: its input holds the one command that starts the protocol, its output
// collects every event. A monitor socket forgets what happens while nobody is
// connected; the file does not, so a restarted agent reads what it missed,
// with the same code that reads Cloud Hypervisor's events.
package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/proc"
)

// Name of the driver, as specs and records have it.
const Name = "qemu"

const (
	qmpSocket   = "qmp.sock"
	qmpInput    = "qmp.in"
	overheadMiB = 256
)

// Driver implements vm.Driver.
type Driver struct {
	path     string
	firmware string
	log      *slog.Logger
	demux    *demux
}

var _ vm.Driver = (*Driver)(nil)

// New makes a driver of a QEMU program. firmware is the folder with
// bios-microvm.bin and linuxboot_dma.bin; "" is QEMU's own choice.
func New(path, firmware string, log *slog.Logger) *Driver {
	log = log.With("part", "vm/qemu")
	return &Driver{path: path, firmware: firmware, log: log, demux: newDemux(log)}
}

// Name implements vm.Driver.
func (d *Driver) Name() string { return Name }

// Version implements vm.Driver.
func (d *Driver) Version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, d.path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", d.path, err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(first), nil
}

// Listen implements vm.Driver. All guests of a host reach the same port; who
// is who the kernel tells by the context id.
func (d *Driver) Listen(cfg vm.Config, port uint32) (net.Listener, error) {
	return d.demux.listen(cfg.CID, port)
}

// Start implements vm.Driver.
func (d *Driver) Start(ctx context.Context, cfg vm.Config) (vm.VM, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	memory, err := proc.Memory(cfg, overheadMiB)
	if err != nil {
		return nil, err
	}
	var taps []*os.File
	for _, n := range cfg.NICs {
		taps = append(taps, n.Tap)
	}
	p, err := proc.Start(ctx, proc.Spec{
		Driver: Name, ID: cfg.ID, Dir: cfg.Dir, Path: d.path, Args: args(cfg, d.firmware), Rules: rules(d.path, d.firmware, cfg),
		Prepare: func() (*os.File, error) { return prepare(cfg) }, Files: taps,
		Memory: memory, Pids: 128 + 4*cfg.VCPUs, Parse: parse, Remove: removed(), Logger: d.log,
	})
	if err != nil {
		return nil, err
	}
	m := d.machine(p, cfg)
	if err := m.booted(ctx); err != nil {
		return nil, errors.Join(err, m.abandon())
	}
	return m, nil
}

func prepare(cfg vm.Config) (*os.File, error) {
	input := filepath.Join(cfg.Dir, qmpInput)
	if err := os.WriteFile(input, []byte(`{"execute":"qmp_capabilities"}`+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("qmp: %w", err)
	}
	return proc.ListenInherited(filepath.Join(cfg.Dir, qmpSocket))
}

// Adopt implements vm.Driver. A VMM that runs and does not answer is ended:
// nobody could say what it does, and it would stand in the way of the next.
func (d *Driver) Adopt(ctx context.Context, cfg vm.Config) (vm.VM, error) {
	p, err := proc.Adopt(cfg.Dir, Name, parse, removed(), d.log)
	if err != nil {
		return nil, err
	}
	m := d.machine(p, cfg)
	if p.Alive() {
		if _, err := m.status(ctx); err != nil && p.Alive() {
			return nil, errors.Join(fmt.Errorf("adopt: %w", err), m.abandon())
		}
	}
	return m, nil
}

func removed() []string { return []string{qmpSocket, qmpInput} }

// parse reads a line of the monitor's output: its greeting, an answer, or
// {"timestamp":{…},"event":…,"data":{…}}.
func parse(object []byte, now time.Time) (proc.Parsed, error) {
	var e struct {
		Event string
		Data  struct {
			Action, Reason string
			Guest          bool
		}
		Error *qmpError
	}
	if err := json.Unmarshal(object, &e); err != nil {
		return proc.Parsed{}, err
	}
	if e.Error != nil {
		return proc.Parsed{}, e.Error
	}
	switch e.Event {
	case "GUEST_PANICKED", "GUEST_CRASHLOADED":
		return proc.Parsed{Event: vm.Event{Kind: vm.EventPanic, At: now, Detail: e.Data.Action}}, nil
	case "RESET":
		return proc.Parsed{Kill: true, Event: vm.Event{Kind: vm.EventReboot, At: now, Detail: "the guest was reset"}}, nil
	case "SHUTDOWN":
		// With reboot=shutdown a reset arrives as a shutdown for that reason.
		if e.Data.Reason == "guest-reset" {
			return proc.Parsed{Kill: true, Event: vm.Event{Kind: vm.EventReboot, At: now, Detail: "the guest asked for a reboot"}}, nil
		}
	}
	return proc.Parsed{}, nil
}

// Machine is a VM under QEMU.
type Machine struct {
	process *proc.Process
	socket  string
	cfg     vm.Config // for the ids of devices; never for what Info says
}

var _ vm.VM = (*Machine)(nil)

func (d *Driver) machine(p *proc.Process, cfg vm.Config) *Machine {
	return &Machine{process: p, socket: filepath.Join(cfg.Dir, qmpSocket), cfg: cfg}
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
func (m *Machine) PowerButton(ctx context.Context) error {
	return m.ask(ctx, func(q *qmp) error { return q.call("system_powerdown", nil, nil) })
}

func (m *Machine) abandon() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return m.Kill(ctx)
}

// booted waits until QEMU answers that the guest runs. The listening socket
// exists since before QEMU does, so this connects at once and the answer comes
// when QEMU's main loop turns, which is after its set-up.
func (m *Machine) booted(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		state, err := m.status(ctx)
		if err == nil && state != "running" {
			err = fmt.Errorf("qemu: the VM is %s", state)
		}
		answer <- err
	}()
	select {
	case err := <-answer:
		if err != nil {
			return fmt.Errorf("%w: %s", err, m.process.LogTail())
		}
		return nil
	case <-m.process.Done():
		return fmt.Errorf("qemu ended while starting: %s", m.process.LogTail())
	}
}

func (m *Machine) status(ctx context.Context) (state string, err error) {
	err = m.ask(ctx, func(q *qmp) error {
		var answer struct{ Status string }
		err := q.call("query-status", nil, &answer)
		state = answer.Status
		return err
	})
	return state, err
}
