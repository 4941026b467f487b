// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/zos-node/zos/agent/imaged"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/zimage"
)

const (
	// readBytes is how much is read in a row; an image must have twice as much.
	readBytes   = 16 << 20
	readRandom  = 300
	guestKernel = "linux-image-cloud-amd64"
	readLimit   = 10 * time.Minute // of one boot
	// verityGoal is the share of the speed without verity that has to be left.
	verityGoal = 0.9
)

// kinds are the ways in which a disk comes to a guest.
var kinds = []string{"plain", "complete", "lazy"}

// guestDisks are files to start a guest from, and what it must know of them.
type guestDisks struct {
	at    map[string]string // by serial
	m     zimage.Manifest
	wrong int64 // offset of the wrong block of the disk "wrong"
}

// reads measures what dm-verity and the image server cost a guest that reads
// what the host has in its page cache. The guest runs in QEMU directly: inside
// of Cloud Hypervisor inside of an emulated machine there would be nothing to
// see but the emulator. Where KVM does not work, a row says so: hashing is
// emulated then and the copying is not, so that the loss is out of all
// proportion to a processor's.
//
// At its end each guest reads a block that is wrong, and what counts is the
// time until the agent's part is done: the event is heard, the VM is gone.
func (b *bench) reads(ctx context.Context, m made) (err error) {
	if m.Bytes < 2*readBytes || b.read {
		return nil // one image is as good as another
	}
	if err := imaged.Available(); err != nil {
		b.cannot("reads in a guest", "<= 10 % lost in a row", m, err.Error())
		return nil
	}
	b.read = true
	disks, stop, err := b.guestDisks(ctx, m)
	defer func() { err = errors.Join(err, stop(), b.fresh()) }()
	if err != nil {
		return err
	}
	g, err := b.guest(ctx)
	if err != nil {
		return err
	}
	all, err := g.boot(ctx, disks, b.rounds)
	if err != nil {
		return err
	}
	b.readRows(m, g.accel, all)
	gone := row{What: "a wrong block is read, until its VM is gone", Than: "nothing", Image: m.Name, Goal: reported}
	for len(gone.OursMs) < b.rounds {
		gone.OursMs = append(gone.OursMs, all.gone.Milliseconds())
		if len(gone.OursMs) == b.rounds {
			break
		}
		if all, err = g.boot(ctx, disks, 0); err != nil {
			return err
		}
	}
	gone.Holds = true // it went each time
	b.add(gone)
	return nil
}

// guestDisks makes the disks. What it gives to stop is to be called whatever
// happens.
func (b *bench) guestDisks(ctx context.Context, m made) (d guestDisks, stop func() error, err error) {
	var stops []func() error
	stop = func() (err error) {
		for _, f := range stops {
			err = errors.Join(err, f())
		}
		return err
	}
	work := b.path("work")
	if err := b.fresh(); err != nil {
		return d, stop, err
	}
	p, err := run(ctx, b.zos, "image", "convert", "oci:"+m.layout, "--store", filepath.Join(work, "store"), "--json")
	if err != nil {
		return d, stop, err
	}
	var converted struct{ ID string }
	if err := json.Unmarshal(p.out, &converted); err != nil {
		return d, stop, err
	}
	store, err := zimage.OpenStore(filepath.Join(work, "store"))
	if err != nil {
		return d, stop, err
	}
	if d.m, err = store.Manifest(converted.ID); err != nil {
		return d, stop, err
	}
	skipped := held(d.m)
	for _, kind := range kinds {
		mirror := zimage.Handler(store)
		if kind == "lazy" {
			mirror = without(mirror, skipped)
		}
		srv := httptest.NewServer(mirror)
		stops = append(stops, func() error { srv.CloseClientConnections(); srv.Close(); return nil })
		if kind == "plain" {
			d.at = map[string]string{"plain": filepath.Join(work, "plain.img")}
			if _, err := (&zimage.Fetcher{Mirrors: []string{srv.URL}}).Image(ctx, d.m, converted.ID, d.at["plain"]); err != nil {
				return d, stop, err
			}
			continue
		}
		l := &imaged.Launcher{Dir: filepath.Join(work, kind), Program: b.self, Mirrors: []string{srv.URL}, Deadline: readLimit,
			Log: slog.New(slog.DiscardHandler), Start: startServer}
		s, err := l.Serve(ctx, d.m, converted.ID, filepath.Join(work, kind+".img"), nil)
		if err != nil {
			return d, stop, err
		}
		stops = append([]func() error{func() error { return s.Kill(context.Background()) }}, stops...)
		if err := s.Ready(ctx); err != nil {
			return d, stop, err
		}
		if kind == "complete" {
			select {
			case <-s.Whole():
			case <-ctx.Done():
				return d, stop, ctx.Err()
			}
		}
		d.at[kind] = s.Path()
	}
	for _, at := range d.at { // into the page cache, and, for the lazy one, into the file
		if err := warm(at, d.m); err != nil {
			return d, stop, err
		}
	}
	d.at["wrong"], d.wrong = filepath.Join(work, "wrong.img"), readBytes/2
	return d, stop, spoiled(d.at["plain"], d.at["wrong"], d.wrong)
}

// held is a chunk that is not read, and without which an image arrives no end.
func held(m zimage.Manifest) string {
	seen := map[string]bool{} // what stands at the beginning too arrives with that
	for _, c := range m.Chunks {
		if c.Off >= readBytes+readBytes/2 && c.Off < m.DataSize && !seen[c.ID] {
			return c.ID
		}
		seen[c.ID] = true
	}
	return ""
}

// without is a mirror that sends all chunks but one.
func without(h http.Handler, id string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, id) {
			<-r.Context().Done()
			return
		}
		h.ServeHTTP(w, r)
	})
}

// warm reads what a guest will.
func warm(name string, m zimage.Manifest) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.NewSectionReader(f, 0, readBytes))
	_, tree := io.Copy(io.Discard, io.NewSectionReader(f, m.DataSize, m.DiskSize-m.DataSize))
	return errors.Join(err, tree, f.Close())
}

// spoiled is a copy with one wrong byte.
func spoiled(from, to string, at int64) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	b[at] ^= 1
	return os.WriteFile(to, b, 0o600)
}

// guest is what is booted.
type guest struct {
	kernel, initrd string
	accel          qemu.Accel
	log            string
}

func (b *bench) guest(ctx context.Context) (*guest, error) {
	parts, err := kernel.Open(kernel.Options{Cache: b.cache, Lock: "kernel/debian.lock", WorkLock: b.path("debian.lock"),
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		return nil, err
	}
	linux, err := parts.Linux(ctx, guestKernel)
	if err != nil {
		return nil, err
	}
	init, err := image.Program{Package: "github.com/zos-node/zos/qemu/imagebench/reader"}.Build(ctx, ".")
	if err != nil {
		return nil, err
	}
	initrd, _, err := image.Guest(linux, init) // the modules are those of every guest
	if err != nil {
		return nil, err
	}
	g := &guest{kernel: b.path("vmlinuz"), initrd: b.path("initrd"), accel: qemu.Probe(ctx, qemu.Binary), log: b.path("guest.log")}
	return g, errors.Join(os.WriteFile(g.kernel, linux.Image, 0o600), os.WriteFile(g.initrd, initrd, 0o600))
}

// told is what a guest said of itself.
type told struct {
	driver string // what hashes
	reads  map[string][]time.Duration
	gone   time.Duration // from the wrong read to the end of the VM
}

// ended is the end of a guest, good or bad.
var ended = regexp.MustCompile("rig: QEMU says (GUEST_PANICKED|SHUTDOWN)")

// key of a measurement.
func key(kind, disk, how string) string { return kind + disk + how }

// boot runs a guest to its end, which is a panic.
func (g *guest) boot(ctx context.Context, d guestDisks, rounds int) (told, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	t, fault, err := g.once(ctx, d, rounds)
	if fault { // the emulator's, and known
		t, _, err = g.once(ctx, d, rounds)
	}
	return t, err
}

func (g *guest) once(ctx context.Context, d guestDisks, rounds int) (t told, fault bool, err error) {
	job, err := json.Marshal(map[string]any{"disks": kinds, "bytes": readBytes, "random": readRandom, "rounds": rounds, "wrong": d.wrong})
	if err != nil {
		return t, false, err
	}
	args := []string{"-action", "panic=pause", "-device", "pvpanic-pci"}
	for serial, at := range d.at {
		args = append(args, "-drive", "if=none,format=raw,readonly=on,id="+serial+",file="+at, "-device", "virtio-blk-pci,drive="+serial+",serial="+serial)
	}
	m, err := qemu.Start(qemu.Options{Accel: g.accel, MemoryMiB: 512, Kernel: g.kernel, Initrd: g.initrd, Args: args, Log: g.log,
		Cmdline: fmt.Sprintf("console=ttyS0 quiet loglevel=3 panic=-1 zos.verity=%s,%d bench=%s", d.m.Verity.Root, d.m.Verity.HashStart, job)})
	if err != nil {
		return t, false, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	line, _, _, err := m.Console.Expect(ctx, 0, ended)
	if err != nil {
		return t, m.EmulatorFault(), err
	}
	err = m.Close()
	end := time.Now()
	t.reads = map[string][]time.Duration{}
	var began time.Time
	for _, l := range m.Console.Lines(0) {
		switch text, value, _ := strings.Cut(l.Text, " "); text {
		case "SHA256":
			t.driver = value
		case "WRONG":
			began = l.At
		case "READ":
			var s struct {
				Disk, How, Kind string
				Ns              int64
			}
			err = errors.Join(err, json.Unmarshal([]byte(value), &s))
			k := key(s.Kind, s.Disk, s.How)
			t.reads[k] = append(t.reads[k], time.Duration(s.Ns))
		}
	}
	if began.IsZero() || !strings.Contains(line.Text, "PANICKED") {
		return t, m.EmulatorFault(), errors.Join(err, fmt.Errorf("the guest ended otherwise: %s\n%s", line.Text, m.Console.Tail(20)))
	}
	t.gone = end.Sub(began)
	return t, false, err
}

// readRows makes rows of what a guest said.
func (b *bench) readRows(m made, accel qemu.Accel, t told) {
	than := "the plain file without verity"
	if accel.Name != "kvm" {
		than += ", all emulated"
		b.tell("reads in a guest: " + accel.Why + "; an emulated processor hashes many times slower than a real one, the copying is not emulated")
	}
	b.tell(fmt.Sprintf("reads in a guest: QEMU directly, %s, SHA-256 by %s; %d MiB in a row, %d times 4 KiB at random", accel.Name, t.driver, readBytes>>20, readRandom))
	for _, kind := range []struct{ is, name string }{
		{"sequential", "sequential reads in a guest"},
		{"again", "the same once more, from the guest's own memory"},
		{"random", "random reads in a guest"},
	} {
		for _, c := range []struct{ serial, how, name string }{
			{"plain", "verity", "plain file"}, {"complete", "verity", "FUSE, complete"}, {"lazy", "verity", "FUSE, still arriving"},
			{"plain", "generic", "plain file, by the kernel's generic SHA-256"},
			{"complete", "bare", "FUSE, complete, without verity"}, {"lazy", "bare", "FUSE, still arriving, without verity"},
		} {
			r := row{What: kind.name + ", " + c.name, Than: than, Image: m.Name, Goal: reported, Holds: true}
			var ours, theirs []int64 // ns: what comes from memory takes few milliseconds
			for i, d := range t.reads[key(kind.is, c.serial, c.how)] {
				bare := t.reads[key(kind.is, "plain", "bare")][i]
				ours, theirs = append(ours, int64(d)), append(theirs, int64(bare))
				r.OursMs, r.TheirsMs = append(r.OursMs, d.Milliseconds()), append(r.TheirsMs, bare.Milliseconds())
			}
			r.Ratio = float64(median(theirs)) / float64(max(median(ours), 1))
			if kind.is != "random" && c.how == "verity" {
				r.Goal, r.Holds = fmt.Sprintf(">= %.2f", verityGoal), r.Ratio >= verityGoal
			}
			b.add(r)
		}
	}
}
