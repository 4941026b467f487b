// SPDX-License-Identifier: Apache-2.0

// Package ch runs VMs under Cloud Hypervisor.
//
// One exec with the whole configuration in its arguments, nothing composed
// over the API afterwards: what ran can be read from /proc/<pid>/cmdline. The
// API socket is used to ask, and its listener is made here and inherited, so
// that there is no moment at which it does not answer yet.
//
// Cloud Hypervisor restarts a guest in place when that asks for a reboot. A
// guest that started again on its own is not what was checked, so the VM is
// killed as soon as the event says so.
package ch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/proc"
)

// Name of the driver, as specs and records have it.
const Name = "cloud-hypervisor"

const (
	apiSocket   = "api.sock"
	vsockDir    = "vsock" // its own folder: the VMM may make sockets in it, and nothing else lies there
	vsockSocket = "v.sock"
	overheadMiB = 96 // measured below 20 in use; page tables and device queues grow with the guest
)

// Driver implements vm.Driver.
type Driver struct {
	path string
	log  *slog.Logger
}

var _ vm.Driver = (*Driver)(nil)

// New makes a driver of a Cloud Hypervisor program.
func New(path string, log *slog.Logger) *Driver {
	return &Driver{path: path, log: log.With("part", "vm/ch")}
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

// Listen implements vm.Driver. Cloud Hypervisor's vsock is a Unix socket per
// VM: what the guest connects to on port N arrives at "<socket>_N".
func (d *Driver) Listen(cfg vm.Config, port uint32) (net.Listener, error) {
	dir := filepath.Join(cfg.Dir, vsockDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("vsock: %w", err)
	}
	name := filepath.Join(dir, vsockSocket+"_"+strconv.FormatUint(uint64(port), 10))
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("vsock: %w", err) // of an agent that ended
	}
	l, err := net.Listen("unix", name)
	if err != nil {
		return nil, fmt.Errorf("vsock: %w", err)
	}
	return l, nil
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
		Driver: Name, ID: cfg.ID, Dir: cfg.Dir, Path: d.path, Args: args(cfg), Rules: rules(d.path, cfg),
		Prepare: func() (*os.File, error) { return prepare(cfg) }, Files: taps,
		Memory: memory, Pids: 64 + 4*cfg.VCPUs, Parse: parse, Remove: removed(), Logger: d.log,
	})
	if err != nil {
		return nil, err
	}
	v := d.machine(p, cfg)
	if err := p.Booted(ctx); err != nil {
		return nil, errors.Join(err, v.abandon())
	}
	return v, nil
}

func prepare(cfg vm.Config) (*os.File, error) {
	if err := os.MkdirAll(filepath.Join(cfg.Dir, vsockDir), 0o700); err != nil {
		return nil, fmt.Errorf("vsock: %w", err)
	}
	return proc.ListenInherited(filepath.Join(cfg.Dir, apiSocket))
}

// Adopt implements vm.Driver. A VMM that runs and does not answer is ended:
// nobody could say what it does, and it would stand in the way of the next.
func (d *Driver) Adopt(ctx context.Context, cfg vm.Config) (vm.VM, error) {
	p, err := proc.Adopt(cfg.Dir, Name, parse, removed(), d.log)
	if err != nil {
		return nil, err
	}
	v := d.machine(p, cfg)
	if p.Alive() {
		if err := v.api.ping(ctx); err != nil && p.Alive() {
			return nil, errors.Join(fmt.Errorf("adopt: %w", err), v.abandon())
		}
	}
	return v, nil
}

func removed() []string {
	return []string{apiSocket, apiSocket + ".lock", vsockDir + "/" + vsockSocket, vsockDir}
}

// parse reads an event: {"timestamp":…,"source":…,"event":…,"properties":…}.
func parse(object []byte, now time.Time) (proc.Parsed, error) {
	var e struct {
		Source, Event string
		Properties    map[string]string
	}
	if err := json.Unmarshal(object, &e); err != nil {
		return proc.Parsed{}, err
	}
	switch e.Source + " " + e.Event {
	case "vm booted":
		return proc.Parsed{Booted: true}, nil
	case "guest panic":
		return proc.Parsed{Event: vm.Event{Kind: vm.EventPanic, At: now, Detail: e.Properties["event"]}}, nil
	case "vm rebooting":
		return proc.Parsed{Kill: true, Event: vm.Event{Kind: vm.EventReboot, At: now, Detail: "the guest asked for a reboot"}}, nil
	}
	return proc.Parsed{}, nil
}
