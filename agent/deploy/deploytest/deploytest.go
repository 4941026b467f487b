// SPDX-License-Identifier: Apache-2.0

// Package deploytest is a node without hardware: VMs that are goroutines, whose
// guests speak the real protocol over real sockets, a network without packets,
// and mirrors that have everything. They outlive agents, as the real ones do.
package deploytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/zos-node/zos/agent/content"
	"github.com/zos-node/zos/agent/network"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/guest/wire"
	"github.com/zos-node/zos/zimage"
)

// Driver runs VMs that are goroutines. It outlives agents, as real VMs do.
type Driver struct {
	mu     sync.Mutex
	vms    map[string]*VM   // by directory
	log    []string         // "start web", "stop app", in order
	Guests map[string]Guest // by machine
	Starts map[string]int
	Fail   string // machine whose VM does not start
	Lie    func(machine string, r *vm.Running)
}

// Guest is how the guest of a machine acts.
type Guest struct {
	Fatal     bool
	Silent    bool // never says anything
	BadRoot   bool // its verity root is another one
	Mute      bool // its hypervisor does not say in time what it runs
	Unhealthy bool // its check never passes
	Deaf      bool // does not end when it is asked to
	OnStart   func(*VM)
}

// NewDriver has no VMs.
func NewDriver() *Driver {
	return &Driver{vms: map[string]*VM{}, Guests: map[string]Guest{}, Starts: map[string]int{}}
}

func (d *Driver) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, fmt.Sprintf(format, args...))
}

// Did is what guests and VMs did, in order.
func (d *Driver) Did() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

// Running counts the VMs that run.
func (d *Driver) Running() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, v := range d.vms {
		if v.alive() {
			n++
		}
	}
	return n
}

// Find is the running VM of a machine, nil without one.
func (d *Driver) Find(machine string) *VM {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range d.vms {
		if v.machine == machine && v.alive() {
			return v
		}
	}
	return nil
}

func machineOf(cfg vm.Config) string {
	_, name, _ := strings.Cut(cfg.ID, "-")
	return name
}

// Name implements vm.Driver.
func (d *Driver) Name() string { return "qemu" }

// Version implements vm.Driver.
func (d *Driver) Version(context.Context) (string, error) { return "10", nil }

func socket(cfg vm.Config) string { return filepath.Join(cfg.Dir, "s") }

// Listen implements vm.Driver.
func (d *Driver) Listen(cfg vm.Config, _ uint32) (net.Listener, error) {
	if err := os.Remove(socket(cfg)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", socket(cfg))
}

// Start implements vm.Driver.
func (d *Driver) Start(_ context.Context, cfg vm.Config) (vm.VM, error) {
	m := machineOf(cfg)
	d.mu.Lock()
	d.Starts[m]++
	b, fails := d.Guests[m], d.Fail == m
	d.mu.Unlock()
	if fails {
		return nil, errors.New("no KVM")
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, "state"), nil, 0o600); err != nil {
		return nil, err
	}
	d.mu.Lock()
	nth := d.Starts[m]
	d.mu.Unlock()
	v := &VM{d: d, cfg: cfg, machine: m, Guest: b, done: make(chan struct{}), nth: nth}
	v.subscribe()
	d.mu.Lock()
	d.vms[cfg.Dir] = v
	d.mu.Unlock()
	if !b.Silent {
		go v.live()
	}
	return v, nil
}

// Adopt implements vm.Driver.
func (d *Driver) Adopt(_ context.Context, cfg vm.Config) (vm.VM, error) {
	if _, err := os.Stat(filepath.Join(cfg.Dir, "state")); err != nil {
		return nil, err
	}
	d.mu.Lock()
	v := d.vms[cfg.Dir]
	d.mu.Unlock()
	if v == nil {
		return nil, errors.New("unknown VM")
	}
	v.subscribe()
	return v, nil
}

// Kernel is a network without packets; it outlives agents.
type Kernel struct {
	mu    sync.Mutex
	up    map[string]bool // bridges
	Rules string
	Fail  bool
	stuck bool
}

// Stick makes every Down fail until it is called with false.
func (k *Kernel) Stick(on bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stuck = on
}

// Apply implements network.Kernel.
func (k *Kernel) Apply(r network.Ruleset) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Rules = r.String()
	return nil
}

// Up implements network.Kernel.
func (k *Kernel) Up(p *network.Plan) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.up == nil {
		k.up = map[string]bool{}
	}
	for _, n := range p.Networks {
		k.up[n.Bridge] = true
		if k.Fail {
			return errors.New("no such device")
		}
	}
	return nil
}

// Down implements network.Kernel.
func (k *Kernel) Down(p *network.Plan) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stuck {
		return errors.New("bridge is stuck")
	}
	for _, n := range p.Networks {
		delete(k.up, n.Bridge)
	}
	return nil
}

// Open implements network.Kernel.
func (k *Kernel) Open(network.Tap) (*os.File, error) { return os.Open(os.DevNull) }

// Left counts the bridges that are there.
func (k *Kernel) Left() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.up)
}

// Fetcher has every image of the test's spec.
type Fetcher struct {
	mu        sync.Mutex
	Manifests map[string]zimage.Manifest
	Err       error  // of BlobWithin
	BlobSize  int64  // what a mirror announces for a blob
	Fetched   func() // when set, called for each image
}

// ManifestAhead implements content.Fetcher: no mirror has a start pack.
func (f *Fetcher) ManifestAhead(ctx context.Context, id string) (zimage.Manifest, *zimage.PackAhead, error) {
	m, err := f.Manifest(ctx, id)
	return m, nil, err
}

// Manifest implements content.Fetcher.
func (f *Fetcher) Manifest(_ context.Context, id string) (zimage.Manifest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.Manifests[id]
	if !ok {
		return m, zimage.ErrMismatch
	}
	return m, nil
}

// BlobWithin implements content.Fetcher.
func (f *Fetcher) BlobWithin(_ context.Context, _, path string, room func(int64) error) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Err != nil {
		return 0, f.Err
	}
	if err := room(f.BlobSize); err != nil {
		return 0, err
	}
	return 1, os.WriteFile(path, []byte("blob"), 0o600)
}

// ImageBeside implements content.Fetcher.
func (f *Fetcher) ImageBeside(_ context.Context, _ zimage.Manifest, _, path string, _ *zimage.Donors) (int64, error) {
	if f.Fetched != nil {
		f.Fetched()
	}
	return 2, os.WriteFile(path, []byte("image"), 0o600)
}

// Check is content.Verify for what a Fetcher brings.
func Check(f *os.File, w content.Want) error {
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	want := "blob"
	if w.Image != nil {
		want = "image"
	}
	if string(b) != want {
		return fmt.Errorf("%s: %w", f.Name(), zimage.ErrMismatch)
	}
	return nil
}

// Output is a piece of output.
func Output() wire.Frame {
	return wire.Frame{Output: &wire.Output{Seq: 1, Stream: "stdout", Data: []byte("more\n")}}
}

// SetMemory makes the VM of a machine another one than was planned.
func (d *Driver) SetMemory(machine string, mib int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range d.vms {
		if v.machine == machine {
			v.memory.Store(int64(mib))
		}
	}
}

// EndAll ends every VM.
func (d *Driver) EndAll() {
	d.mu.Lock()
	all := make([]*VM, 0, len(d.vms))
	for _, v := range d.vms {
		all = append(all, v)
	}
	d.mu.Unlock()
	for _, v := range all {
		v.End("cleanup")
	}
}

// Impersonate makes the guest another one from its next connection on.
func (v *VM) Impersonate(key string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.key = key
}
