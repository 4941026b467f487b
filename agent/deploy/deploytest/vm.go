// SPDX-License-Identifier: Apache-2.0

package deploytest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/guest/wire"
)

// VM is a VM and its guest.
type VM struct {
	d       *Driver
	cfg     vm.Config
	machine string
	Guest   Guest
	nth     int
	done    chan struct{}
	memory  atomic.Int64 // another than was planned, when not 0

	mu      sync.Mutex
	events  chan vm.Event
	conn    net.Conn
	config  *wire.Config
	started bool
	healthy bool
	exited  bool
	told    *wire.Health // the last
	console string
	mute    bool   // hung: it says nothing any more
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

// Print is what the guest's kernel says on its console.
func (v *VM) Print(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.console += text
}

// Console is all of it.
func (v *VM) Console() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.console
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
	if v.Guest.Mute {
		return vm.Running{}, context.DeadlineExceeded
	}
	r := vm.Running{VCPUs: v.cfg.VCPUs, MemoryMiB: v.cfg.MemoryMiB, Kernel: v.cfg.Kernel, Initramfs: v.cfg.Initramfs, Cmdline: v.cfg.Cmdline,
		Disks: v.cfg.Disks, CID: v.cfg.CID, Hardening: map[string]string{"seccomp": "2"}}
	if mib := v.memory.Load(); mib != 0 {
		r.MemoryMiB = int(mib)
	}
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
		mute := v.mute
		v.told = nil // until it was resumed
		v.mu.Unlock()
		if mute {
			<-v.done
		} else {
			over := make(chan struct{})
			go v.beat(conn, over)
			v.talk(conn)
			close(over)
		}
		hangUp(conn)
	}
}

// hangUp closes a line that the agent may have closed already.
func hangUp(c net.Conn) {
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		panic(err)
	}
}

func (v *VM) send(c net.Conn, f wire.Frame) bool {
	v.mu.Lock()
	mute := v.mute
	if f.Health != nil {
		v.told = f.Health
	}
	v.mu.Unlock()
	return !mute && wire.WriteFrame(c, f) == nil
}

// Hang makes the guest say nothing from now on, while its VM runs on.
func (v *VM) Hang() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mute = true
}

// Alter makes the guest report another root from now on.
func (v *VM) Alter() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.Guest.BadRoot = true
}

// BeatEvery is how often a guest here repeats its health.
const BeatEvery = 20 * time.Millisecond

// beat repeats the guest's health, as the real one does, while conn is its line.
func (v *VM) beat(conn net.Conn, over <-chan struct{}) {
	t := time.NewTicker(BeatEvery)
	defer t.Stop()
	for {
		select {
		case <-over:
			return
		case <-v.done:
			return
		case <-t.C:
		}
		v.mu.Lock()
		h := v.told
		v.mu.Unlock()
		if h != nil {
			v.send(conn, wire.Frame{Health: h})
		}
	}
}

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
				v.send(c, wire.Frame{Started: &wire.Started{PID: 2}})
				v.send(c, wire.Frame{Health: &wire.Health{OK: healthy}})
			}
		case f.Start != nil:
			v.mu.Lock()
			again := v.started
			v.mu.Unlock()
			if again {
				continue // a new agent may say it again
			}
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
			if !v.Guest.Deaf {
				v.send(c, wire.Frame{Exit: &wire.Exit{Code: 0, Requested: true}})
			}
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
	r := &wire.Report{Cmdline: v.cfg.Cmdline + "\n", Mounts: []string{"/ overlay ro,nodev", "/proc proc rw,nosuid,nodev,noexec", "/sys sysfs ro,nosuid,nodev,noexec",
		"/dev tmpfs ro,nosuid,noexec", "/proc/sys proc ro,nosuid,nodev,noexec"}, Files: map[string]string{},
		Verity: wire.Verity{Status: "V", Table: fmt.Sprintf("0 %d verity 1 254:0 254:0 4096 4096 %d %d sha256 %s - 2 panic_on_error panic_on_corruption", n*8, n, n, root)}}
	for _, f := range v.config.Files {
		sum := sha256.Sum256(f.Content)
		r.Files[f.Path] = hex.EncodeToString(sum[:])
	}
	for _, m := range v.config.Mounts {
		kind := map[string]string{"tmpfs": "tmpfs", "volume": "ext4"}[m.Type]
		r.Mounts = append(r.Mounts, m.Path+" "+kind+" rw,nosuid,nodev,noexec")
	}
	for _, i := range v.config.Interfaces {
		r.Addrs = append(r.Addrs, i.MAC+" "+i.Address)
	}
	return r
}
