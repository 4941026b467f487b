// SPDX-License-Identifier: Apache-2.0

package deploy

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

// fakeDriver runs VMs that are goroutines. It outlives agents, as real VMs do.
type fakeDriver struct {
	mu     sync.Mutex
	vms    map[string]*fakeVM // by directory
	log    []string           // "start web", "stop app", in order
	guests map[string]behaviour
	starts map[string]int
	fail   string // machine whose VM does not start
	lie    func(machine string, r *vm.Running)
}

// behaviour is how the guest of a machine acts.
type behaviour struct {
	fatal     bool
	silent    bool // never says anything
	badRoot   bool // its verity root is another one
	unhealthy bool // its check never passes
	onStart   func(*fakeVM)
}

func newDriver() *fakeDriver {
	return &fakeDriver{vms: map[string]*fakeVM{}, guests: map[string]behaviour{}, starts: map[string]int{}}
}

func (d *fakeDriver) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, fmt.Sprintf(format, args...))
}

func (d *fakeDriver) did() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

func (d *fakeDriver) running() int {
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

func (d *fakeDriver) find(machine string) *fakeVM {
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

func (d *fakeDriver) Name() string                            { return "qemu" }
func (d *fakeDriver) Version(context.Context) (string, error) { return "10", nil }

func socket(cfg vm.Config) string { return filepath.Join(cfg.Dir, "s") }

func (d *fakeDriver) Listen(cfg vm.Config, _ uint32) (net.Listener, error) {
	if err := os.Remove(socket(cfg)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", socket(cfg))
}

func (d *fakeDriver) Start(_ context.Context, cfg vm.Config) (vm.VM, error) {
	m := machineOf(cfg)
	d.mu.Lock()
	d.starts[m]++
	b, fails := d.guests[m], d.fail == m
	d.mu.Unlock()
	if fails {
		return nil, errors.New("no KVM")
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, "state"), nil, 0o600); err != nil {
		return nil, err
	}
	d.mu.Lock()
	nth := d.starts[m]
	d.mu.Unlock()
	v := &fakeVM{d: d, cfg: cfg, machine: m, behaviour: b, done: make(chan struct{}), nth: nth}
	v.subscribe()
	d.mu.Lock()
	d.vms[cfg.Dir] = v
	d.mu.Unlock()
	if !b.silent {
		go v.live()
	}
	return v, nil
}

func (d *fakeDriver) Adopt(_ context.Context, cfg vm.Config) (vm.VM, error) {
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

// fakeVM is a VM and its guest.
type fakeVM struct {
	d         *fakeDriver
	cfg       vm.Config
	machine   string
	behaviour behaviour
	nth       int
	done      chan struct{}

	mu      sync.Mutex
	events  chan vm.Event
	conn    net.Conn
	config  *wire.Config
	started bool
	healthy bool
	exited  bool
	key     string // overrides the guest's key when set
}

func (v *fakeVM) alive() bool {
	select {
	case <-v.done:
		return false
	default:
		return true
	}
}

func (v *fakeVM) subscribe() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.events = make(chan vm.Event, 16)
	if !v.alive() {
		v.events <- vm.Event{Kind: vm.EventExit, Detail: "it was gone"}
		close(v.events)
	}
}

func (v *fakeVM) emit(k vm.EventKind) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.alive() {
		v.events <- vm.Event{Kind: k, Detail: "by the test"}
	}
}

func (v *fakeVM) PID() int { return 42 }
func (v *fakeVM) Events() <-chan vm.Event {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.events
}

func (v *fakeVM) Info(context.Context) (vm.Running, error) {
	r := vm.Running{VCPUs: v.cfg.VCPUs, MemoryMiB: v.cfg.MemoryMiB, Kernel: v.cfg.Kernel, Initramfs: v.cfg.Initramfs, Cmdline: v.cfg.Cmdline,
		Disks: v.cfg.Disks, CID: v.cfg.CID, Hardening: map[string]string{"seccomp": "2"}}
	for _, n := range v.cfg.NICs {
		n.Tap = nil
		r.NICs = append(r.NICs, n)
	}
	if v.d.lie != nil {
		v.d.lie(v.machine, &r)
	}
	return r, nil
}

func (v *fakeVM) Kill(context.Context) error {
	v.end("kill")
	return errors.Join(os.RemoveAll(filepath.Join(v.cfg.Dir, "state")))
}

// end is the VMM's end, by whomever.
func (v *fakeVM) end(how string) {
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
		_ = v.conn.Close()
	}
}

// live dials the agent, again whenever the line breaks.
func (v *fakeVM) live() {
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
		_ = conn.Close()
	}
}

func (v *fakeVM) send(c net.Conn, f wire.Frame) bool { return wire.WriteFrame(c, f) == nil }

func (v *fakeVM) talk(c net.Conn) {
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
			if v.behaviour.fatal {
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
			v.started, v.healthy = true, !v.behaviour.unhealthy
			v.mu.Unlock()
			v.send(c, wire.Frame{Started: &wire.Started{PID: 2}})
			v.send(c, wire.Frame{Output: &wire.Output{Seq: 0, Stream: "stdout", Data: []byte("hello from " + v.machine + "\n")}})
			v.send(c, wire.Frame{Health: &wire.Health{OK: false, Detail: "connection refused"}})
			if v.behaviour.unhealthy {
				v.send(c, wire.Frame{Health: &wire.Health{OK: false, Detail: "still refused", Final: true}})
			} else {
				v.send(c, wire.Frame{Health: &wire.Health{OK: true}})
			}
			if v.behaviour.onStart != nil {
				v.behaviour.onStart(v)
			}
		case f.Stop != nil:
			v.d.note("stop %s", v.machine)
			v.send(c, wire.Frame{Exit: &wire.Exit{Code: 0, Requested: true}})
		case f.ExitOK != nil:
			v.end("off")
			return
		}
	}
}

// say sends a frame on the present connection.
func (v *fakeVM) say(f wire.Frame) {
	v.mu.Lock()
	c := v.conn
	v.mu.Unlock()
	v.send(c, f)
}

func (v *fakeVM) report() *wire.Report {
	_, word, _ := strings.Cut(v.cfg.Cmdline, "zos.verity=")
	root, blocks, _ := strings.Cut(word, ",")
	if v.behaviour.badRoot {
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

// fakeKernel is a network without packets; it outlives agents.
type fakeKernel struct {
	mu    sync.Mutex
	up    map[string]bool // bridges
	rules string
	fail  bool
}

func (k *fakeKernel) Apply(r network.Ruleset) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rules = r.String()
	return nil
}

func (k *fakeKernel) Up(p *network.Plan) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, n := range p.Networks {
		k.up[n.Bridge] = true
		if k.fail {
			return errors.New("no such device")
		}
	}
	return nil
}

func (k *fakeKernel) Down(p *network.Plan) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, n := range p.Networks {
		delete(k.up, n.Bridge)
	}
	return nil
}

func (k *fakeKernel) Open(network.Tap) (*os.File, error) { return os.Open(os.DevNull) }

func (k *fakeKernel) left() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.up)
}

// fakeFetcher has every image of the test's spec.
type fakeFetcher struct {
	mu        sync.Mutex
	manifests map[string]zimage.Manifest
	err       error // of Blob
}

func (f *fakeFetcher) Manifest(_ context.Context, id string) (zimage.Manifest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.manifests[id]
	if !ok {
		return m, zimage.ErrMismatch
	}
	return m, nil
}

func (f *fakeFetcher) Blob(_ context.Context, _, path string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return 0, f.err
	}
	return 1, os.WriteFile(path, []byte("blob"), 0o600)
}

func (f *fakeFetcher) Image(_ context.Context, _ zimage.Manifest, _, path string) (int64, error) {
	return 2, os.WriteFile(path, []byte("image"), 0o600)
}

func wireOutput() wire.Frame {
	return wire.Frame{Output: &wire.Output{Seq: 1, Stream: "stdout", Data: []byte("more\n")}}
}
