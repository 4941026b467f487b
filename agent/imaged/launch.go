// SPDX-License-Identifier: Apache-2.0

package imaged

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/imaged/serve"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/proc"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
)

const (
	// Name of the program, a link to the agent's own.
	Name = "imaged"
	// User is the servers' uid and gid; nothing else on a node has it.
	User = 64100
	// overhead is what a server needs beside the disk, whose pages in the tmpfs
	// are its own, since it writes them.
	overhead   = 128 << 20
	pids       = 64
	configFile = "config.json"
	idLen      = 16
	fuseDevice = "/dev/fuse"
	dnsPort    = 53 // over TCP, for long answers
)

// Process is a server's, as proc.Process is.
type Process interface {
	Booted(ctx context.Context) error
	Events() <-chan vm.Event
	Done() <-chan struct{}
	Hardening() (map[string]string, error)
	Kill(ctx context.Context) error
	LogTail() string
}

// Launcher starts servers and finds them again.
type Launcher struct {
	Dir      string // a folder per server
	Program  string
	Mirrors  []string
	Deadline time.Duration // how long a read may wait
	// Report, which may be nil, hears of mirrors as zimage.Fetcher's does.
	Report func(mirror, what string, err error)
	Log    *slog.Logger
	// Start and Adopt are proc's; tests, which have no cgroups, replace them.
	Start func(context.Context, proc.Spec) (Process, error)
	Adopt func(dir string, parse proc.ParseFunc) (Process, error)
}

// New makes a launcher of the program at path.
func New(dir, path string, mirrors []string, deadline time.Duration, report func(mirror, what string, err error), log *slog.Logger) *Launcher {
	return &Launcher{Dir: dir, Program: path, Mirrors: mirrors, Deadline: deadline, Report: report, Log: log,
		Start: func(ctx context.Context, s proc.Spec) (Process, error) { return proc.Start(ctx, s) },
		Adopt: func(dir string, parse proc.ParseFunc) (Process, error) {
			return proc.Adopt(dir, Name, parse, []string{configFile}, log)
		}}
}

// Available says why images cannot be served here, nil when they can.
func Available() error {
	f, err := os.OpenFile(fuseDevice, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("no FUSE: %w", err)
	}
	return f.Close()
}

// diskFile is where a disk is shown, in the server's folder.
const diskFile = "disk.img"

// Serve shows the disk of an image at Path, from what the files hold that
// zimage.PartNames says for store, and the mirrors send. trace is what an
// earlier start read. It returns when the server runs; when it fails, nothing
// is left but what has arrived.
func (l *Launcher) Serve(ctx context.Context, m zimage.Manifest, id, store string, trace extent.List) (*Served, error) {
	return l.ServeBeside(ctx, m, id, store, trace, Near{})
}

// ServeBeside is Serve where other images are.
func (l *Launcher) ServeBeside(ctx context.Context, m zimage.Manifest, id, store string, trace extent.List, near Near) (_ *Served, err error) {
	defer func() {
		if err != nil {
			near.Pack.Close()
		}
	}()
	hex := strings.TrimPrefix(id, "sha256:")
	if len(hex) < idLen {
		return nil, fmt.Errorf("image id %q", id)
	}
	dir := filepath.Join(l.Dir, hex[:idLen])
	s := &Served{path: filepath.Join(dir, diskFile), dir: dir, log: l.Log.With("image", id), report: l.Report,
		whole: make(chan struct{}), ended: make(chan struct{}), cfg: serve.Config{ID: id, Store: store, Manifest: m, Mirrors: l.Mirrors, Trace: m.ChunksOf(trace), DeadlineMs: l.Deadline.Milliseconds(), Asked: near.asked(), Lent: near.bits(m)}}
	s.missing = len(m.Chunks)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("image server: %w", err)
	}
	ports, err := ports(l.Mirrors)
	if err != nil {
		return nil, err
	}
	files, err := s.files()
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.Close()) // the server has its own
		}
	}()
	if err != nil {
		return nil, err
	}
	shown, theirs, err := socket()
	if err != nil {
		return nil, err
	}
	files = append(files, theirs)
	packed, theirs, err := near.pipe()
	if err != nil {
		return nil, errors.Join(err, shown.Close())
	}
	files = append(files, theirs)
	var lent net.Conn
	if s.cfg.Lent != nil {
		if lent, theirs, err = socket(); err != nil {
			return nil, errors.Join(err, shown.Close(), packed.Close())
		}
		files = append(files, theirs)
	}
	s.process, err = l.Start(ctx, proc.Spec{
		Driver: Name, ID: Name + "-" + hex[:idLen], Dir: s.dir, Path: l.Program, Rules: rules(l.Program), User: User, Connect: ports,
		Prepare: s.mount, Files: files, Memory: m.DiskSize + overhead, Pids: pids, Parse: s.parse, Remove: []string{configFile}, Logger: l.Log,
	})
	if err != nil {
		err = errors.Join(err, shown.Close(), packed.Close())
		if lent != nil {
			err = errors.Join(err, lent.Close())
		}
		return nil, errors.Join(err, s.remove())
	}
	go s.show(shown)
	go s.send(packed, near)
	if lent != nil {
		go s.lend(lent, near)
	}
	if near.Donors != nil { // a manifest of one may be wrong
		go s.examine(near)
	}
	go s.watch()
	return s, nil
}

// rules is the file system to a server: itself, and what names are resolved
// with.
func rules(program string) []proc.Rule {
	return []proc.Rule{{Path: program, Exec: true}, {Path: "/etc/resolv.conf", Optional: true}, {Path: "/etc/hosts", Optional: true},
		{Path: "/etc/nsswitch.conf", Optional: true}, {Path: "/etc/ssl", Optional: true}}
}

// ports are those of the mirrors, and DNS.
func ports(mirrors []string) ([]uint16, error) {
	list := []uint16{dnsPort}
	for _, m := range mirrors {
		u, err := url.Parse(m)
		if err != nil {
			return nil, fmt.Errorf("mirror %q: %w", m, err)
		}
		text := u.Port()
		if text == "" {
			text = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("mirror %q: port %q: %w", m, text, err)
		}
		list = append(list, uint16(n))
	}
	return list, nil
}

// files opens what the server inherits behind the device, in the order of
// the numbers in package serve. What it returns is to be closed.
func (s *Served) files() (files []*os.File, err error) {
	b, err := json.Marshal(s.cfg)
	if err != nil {
		return nil, fmt.Errorf("image server: %w", err)
	}
	config := filepath.Join(s.dir, configFile)
	if err := os.WriteFile(config, b, 0o600); err != nil {
		return nil, fmt.Errorf("image server: %w", err)
	}
	disk, have := zimage.PartNames(s.cfg.Store)
	for _, o := range []struct {
		name string
		flag int
	}{
		{config, os.O_RDONLY},
		{disk, os.O_RDWR | os.O_CREATE},
		{disk, os.O_RDONLY},
		{have, os.O_RDWR | os.O_CREATE},
		{filepath.Join(s.dir, proc.EventsFile), os.O_WRONLY | os.O_CREATE | os.O_APPEND},
	} {
		f, err := os.OpenFile(o.name, o.flag, 0o600)
		if err != nil {
			return files, fmt.Errorf("image server: %w", err)
		}
		files = append(files, f)
	}
	if err := files[serve.DiskFD-serve.ConfigFD].Truncate(s.cfg.Manifest.DiskSize); err != nil {
		return files, fmt.Errorf("image server: %w", err)
	}
	return files, nil
}

// mount makes the empty file and the mount over it; the device is what a
// server reads requests from.
func (s *Served) mount() (_ *os.File, err error) {
	if err := s.unmount(); err != nil { // of a server that an agent did not live to see the end of
		return nil, err
	}
	place, err := os.OpenFile(s.path, os.O_CREATE|os.O_EXCL, 0o400)
	if err == nil {
		err = place.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("place of the image: %w", err)
	}
	dev, err := os.OpenFile(fuseDevice, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("no FUSE: %w", err)
	}
	// The VMMs are of no uid of the server's, and the kernel checks the mode.
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,allow_other,default_permissions,max_read=%d", dev.Fd(), unix.S_IFREG, serve.MaxRead)
	if err := unix.Mount(Name, s.path, "fuse."+Name, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME, options); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", s.path, err), dev.Close())
	}
	return dev, nil
}

// unmount takes the mount away from the path, if there is one, and the empty
// file under it. Whoever has the file of the mount open keeps it.
func (s *Served) unmount() error {
	for {
		on, err := mounted(s.path)
		if err != nil {
			return err
		}
		if !on {
			break
		}
		if err := unix.Unmount(s.path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", s.path, err)
		}
	}
	info, err := os.Lstat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Size() == 0 {
		err = os.Remove(s.path)
	}
	if err != nil {
		return fmt.Errorf("place of the image: %w", err)
	}
	return nil
}

// mounted asks the kernel's table: looking at the path itself would ask the
// server, which may be the one that hangs.
func mounted(path string) (bool, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("mounts: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		// 36 35 98:0 /root /mount/point options…
		if f := strings.Fields(line); len(f) > 4 && f[4] == path {
			return true, nil
		}
	}
	return false, nil
}

// Found is every server that an earlier agent left, alive or not.
func (l *Launcher) Found() ([]*Served, error) {
	list, err := os.ReadDir(l.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("image servers: %w", err)
	}
	var all []*Served
	for _, e := range list {
		dir := filepath.Join(l.Dir, e.Name())
		s := &Served{path: filepath.Join(dir, diskFile), dir: dir, report: l.Report, whole: make(chan struct{}), ended: make(chan struct{})}
		b, err := os.ReadFile(filepath.Join(s.dir, configFile))
		if err == nil {
			err = json.Unmarshal(b, &s.cfg)
		}
		if err == nil {
			s.log = l.Log.With("image", s.cfg.ID)
			s.process, err = l.Adopt(s.dir, s.parse)
		}
		if errors.Is(err, fs.ErrNotExist) {
			// It was never started, its end was seen, or the agent died between
			// its start and the writing of the state.
			if err := l.forget(s, e.Name()); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("image server in %s: %w", s.dir, err)
		}
		on, err := mounted(s.path)
		if err != nil {
			return nil, err
		}
		s.detached = !on
		go s.watch()
		all = append(all, s)
	}
	return all, nil
}

// forget leaves nothing of a server without a state file.
func (l *Launcher) forget(s *Served, name string) error {
	err := os.WriteFile(filepath.Join(proc.Root, Name+"-"+name, "cgroup.kill"), []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("image server %s: %w", name, err)
	}
	return s.remove()
}
