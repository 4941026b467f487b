// SPDX-License-Identifier: Apache-2.0

// Package deploytest is a node without hardware: VMs that are goroutines, whose
// guests speak the real protocol over real sockets, a network without packets,
// and mirrors that have everything. They outlive agents, as the real ones do.
package deploytest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

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
	Unhealthy bool // its check never passes
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

// VM is a VM and its guest.
type VM struct {
	d       *Driver
	cfg     vm.Config
	machine string
	Guest   Guest
	nth     int
	done    chan struct{}

	mu      sync.Mutex
	events  chan vm.Event
	conn    net.Conn
	config  *wire.Config
	started bool
	healthy bool
	exited  bool
	key     string // overrides the guest's key when set
}

func (v *VM) alive() bool {
	select {
	case <-v.done:
		return false
	default:
		return true
	}
}

func (v *VM) subscribe() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.events = make(chan vm.Event, 16)
	if !v.alive() {
		v.events <- vm.Event{Kind: vm.EventExit, Detail: "it was gone"}
		close(v.events)
	}
}

// Emit makes the VM say something.
func (v *VM) Emit(k vm.EventKind) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.alive() {
		v.events <- vm.Event{Kind: k, Detail: "by the test"}
	}
}

// PID implements vm.VM.
func (v *VM) PID() int { return 42 }

// Events implements vm.VM.
func (v *VM) Events() <-chan vm.Event {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.events
}

// Info implements vm.VM.
func (v *VM) Info(context.Context) (vm.Running, error) {
	r := vm.Running{VCPUs: v.cfg.VCPUs, MemoryMiB: v.cfg.MemoryMiB, Kernel: v.cfg.Kernel, Initramfs: v.cfg.Initramfs, Cmdline: v.cfg.Cmdline,
		Disks: v.cfg.Disks, CID: v.cfg.CID, Hardening: map[string]string{"seccomp": "2"}}
	for _, n := range v.cfg.NICs {
		n.Tap = nil
		r.NICs = append(r.NICs, n)
	}
	if v.d.Lie != nil {
		v.d.Lie(v.machine, &r)
	}
	return r, nil
}

// Kill implements vm.VM.
func (v *VM) Kill(context.Context) error {
	v.End("kill")
	return errors.Join(os.RemoveAll(filepath.Join(v.cfg.Dir, "state")))
}

// End is the VMM's end, by whomever.
func (v *VM) End(how string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.alive() {
		return
	}
	v.d.note("%s %s", how, v.machine)
	close(v.done)
	v.events <- vm.Event{Kind: vm.EventExit, Detail: how}
	close(v.events)
	if v.conn != nil {
		hangUp(v.conn)
	}
}

// live dials the agent, again whenever the line breaks.
func (v *VM) live() {
	for v.alive() {
		conn, err := net.Dial("unix", socket(v.cfg))
		if err != nil {
			select {
			case <-v.done:
			case <-time.After(2 * time.Millisecond):
			}
			continue
		}
		v.mu.Lock()
		v.conn = conn
		v.mu.Unlock()
		v.talk(conn)
		hangUp(conn)
	}
}

// hangUp closes a line that the agent may have closed already.
func hangUp(c net.Conn) {
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		panic(err)
	}
}

func (v *VM) send(c net.Conn, f wire.Frame) bool { return wire.WriteFrame(c, f) == nil }

func (v *VM) talk(c net.Conn) {
	v.mu.Lock()
	key := v.key
	if key == "" {
		key = fmt.Sprintf("ssh-ed25519 %s-%d", v.machine, v.nth)
	}
	configured := v.config != nil
	v.mu.Unlock()
	if !v.send(c, wire.Frame{Hello: &wire.Hello{Version: wire.Version, BootID: fmt.Sprint("boot", v.nth), PublicKey: key, Running: configured}}) {
		return
	}
	for {
		f, err := wire.ReadFrame(c)
		if err != nil {
			return
		}
		switch {
		case f.Config != nil:
			v.mu.Lock()
			v.config = f.Config
			v.mu.Unlock()
			if v.Guest.Fatal {
				v.send(c, wire.Frame{Fatal: &wire.Fatal{Phase: "root", Error: "no such device"}})
				continue
			}
			v.send(c, wire.Frame{Report: v.report()})
		case f.Resume != nil:
			v.send(c, wire.Frame{Report: v.report()})
			v.mu.Lock()
			started, healthy := v.started, v.healthy
			v.mu.Unlock()
			if started {
				v.send(c, wire.Frame{Health: &wire.Health{OK: healthy}})
			}
		case f.Start != nil:
			v.d.note("start %s", v.machine)
			v.mu.Lock()
			v.started, v.healthy = true, !v.Guest.Unhealthy
			v.mu.Unlock()
			v.send(c, wire.Frame{Started: &wire.Started{PID: 2}})
			v.send(c, wire.Frame{Output: &wire.Output{Seq: 0, Stream: "stdout", Data: []byte("hello from " + v.machine + "\n")}})
			v.send(c, wire.Frame{Health: &wire.Health{OK: false, Detail: "connection refused"}})
			if v.Guest.Unhealthy {
				v.send(c, wire.Frame{Health: &wire.Health{OK: false, Detail: "still refused", Final: true}})
			} else {
				v.send(c, wire.Frame{Health: &wire.Health{OK: true}})
			}
			if v.Guest.OnStart != nil {
				v.Guest.OnStart(v)
			}
		case f.Stop != nil:
			v.d.note("stop %s", v.machine)
			v.send(c, wire.Frame{Exit: &wire.Exit{Code: 0, Requested: true}})
		case f.ExitOK != nil:
			v.End("off")
			return
		}
	}
}

// Say sends a frame on the present connection.
func (v *VM) Say(f wire.Frame) {
	v.mu.Lock()
	c := v.conn
	v.mu.Unlock()
	v.send(c, f)
}

func (v *VM) report() *wire.Report {
	_, word, _ := strings.Cut(v.cfg.Cmdline, "zos.verity=")
	root, blocks, _ := strings.Cut(word, ",")
	if v.Guest.BadRoot {
		root = strings.Repeat("0", 64)
	}
	var n int64
	if _, err := fmt.Sscan(blocks, &n); err != nil {
		panic(err)
	}
	r := &wire.Report{Cmdline: v.cfg.Cmdline + "\n", Mounts: []string{"/ overlay ro,nodev", "/proc proc rw", "/sys sysfs ro", "/dev tmpfs rw"}, Files: map[string]string{},
		Verity: wire.Verity{Status: "V", Table: fmt.Sprintf("0 %d verity 1 254:0 254:0 4096 4096 %d %d sha256 %s - 2 panic_on_error panic_on_corruption", n*8, n, n, root)}}
	for _, f := range v.config.Files {
		sum := sha256.Sum256(f.Content)
		r.Files[f.Path] = hex.EncodeToString(sum[:])
	}
	for _, m := range v.config.Mounts {
		kind := map[string]string{"tmpfs": "tmpfs", "volume": "ext4"}[m.Type]
		r.Mounts = append(r.Mounts, m.Path+" "+kind+" rw,nosuid")
	}
	for _, i := range v.config.Interfaces {
		r.Addrs = append(r.Addrs, i.MAC+" "+i.Address)
	}
	return r
}

// Kernel is a network without packets; it outlives agents.
type Kernel struct {
	mu    sync.Mutex
	up    map[string]bool // bridges
	Rules string
	Fail  bool
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
	Err       error // of Blob
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

// Blob implements content.Fetcher.
func (f *Fetcher) Blob(_ context.Context, _, path string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Err != nil {
		return 0, f.Err
	}
	return 1, os.WriteFile(path, []byte("blob"), 0o600)
}

// Image implements content.Fetcher.
func (f *Fetcher) Image(_ context.Context, _ zimage.Manifest, _, path string) (int64, error) {
	return 2, os.WriteFile(path, []byte("image"), 0o600)
}

// Output is a piece of output.
func Output() wire.Frame {
	return wire.Frame{Output: &wire.Output{Seq: 1, Stream: "stdout", Data: []byte("more\n")}}
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
