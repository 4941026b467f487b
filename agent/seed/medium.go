// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/kernel/kmod"
	"github.com/zos-node/zos/kernel/partition"
)

const (
	sectorSize = 512
	// offsets of a FAT boot sector
	offSignature = 510
	offFAT16Name = 54
	offFAT32Name = 82
)

// medium looks for MediumPath on every FAT file system that the node can
// see. It mounts read-only and never writes.
type medium struct {
	efivars string // partition.EFIVars
	sys     string // partition.Sys
	dev     string // partition.Dev
	mount   func(device string, read func(dir string) error) error
	log     *slog.Logger
}

func newMedium(log *slog.Logger) medium {
	return medium{efivars: partition.EFIVars, sys: partition.Sys, dev: partition.Dev, log: log, mount: mountVFAT}
}

// candidates are the block devices that hold a FAT file system.
func (m medium) candidates() ([]string, error) {
	entries, err := os.ReadDir(m.sys)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list block devices: %w", err)
	}
	var out []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "ram") || strings.HasPrefix(name, "dm-") {
			continue
		}
		dev := filepath.Join(m.dev, name)
		fat, err := isFAT(dev)
		if err != nil {
			// An empty card reader or a dying disk must not stop the boot.
			m.log.Warn("cannot read block device", "device", dev, "err", err)
			continue
		}
		if fat {
			out = append(out, dev)
		}
	}
	return out, nil
}

func isFAT(dev string) (bool, error) {
	f, err := os.Open(dev)
	if err != nil {
		return false, err
	}
	b := make([]byte, sectorSize)
	_, err = io.ReadFull(f, b)
	if cerr := f.Close(); err != nil || cerr != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil // smaller than a sector: no medium
		}
		return false, errors.Join(err, cerr)
	}
	return b[offSignature] == 0x55 && b[offSignature+1] == 0xaa &&
		(string(b[offFAT16Name:offFAT16Name+3]) == "FAT" || string(b[offFAT32Name:offFAT32Name+3]) == "FAT"), nil
}

// Finder looks for a file on every FAT file system that the node can see.
// fs.ErrNotExist says that none has it.
func Finder(log *slog.Logger) func(path string) (content []byte, from string, err error) {
	m := newMedium(log)
	return func(path string) ([]byte, string, error) {
		b, from, err := m.look(path)
		if errors.Is(err, ErrNone) {
			err = fs.ErrNotExist
		}
		return b, from, err
	}
}

// look gives a file of the first medium that has it.
func (m medium) look(path string) (b []byte, from string, err error) {
	devs, err := m.candidates()
	if err != nil {
		return nil, "", err
	}
	for _, dev := range devs {
		if b, ok := m.fileOn(dev, path); ok {
			return b, dev + ":" + path, nil
		}
	}
	return nil, "", ErrNone
}

// errLate says that the disk that the node was started from is not there yet.
var errLate = errors.New("the node's own disk has not shown up")

// ErrSeveral says that media disagree about who the node is.
var ErrSeveral = errors.New("several media carry different seeds")

// own is the partition that the node was started from. It is known by the GUID
// that the loader tells, whatever the kernel calls the disk; "" with missing
// says that the loader names one that no disk has (yet).
func (m medium) own() (device string, missing bool, err error) {
	device, guid, err := partition.Own(m.efivars, m.sys, m.dev)
	return device, err == nil && guid != "" && device == "", err
}

// find gives the seed's bytes: those on the node's own boot partition, else
// those on another medium, where all that carry one must agree. It returns
// ErrNone with seen=true when there are media without one, ErrNone with
// seen=false when there are none, and errLate when the node's own is missing
// and late does not say that it was waited for long enough.
func (m medium) find(late bool) (b []byte, from string, seen bool, err error) {
	own, missing, err := m.own()
	if errors.Is(err, partition.ErrTwins) {
		return nil, "", false, err
	}
	if err != nil {
		// A broken variable or table must not stop a node that has its seed elsewhere.
		m.log.Warn("which disk is the node's own is not known", "err", err)
	}
	if missing && !late {
		return nil, "", false, errLate
	}
	devs, err := m.candidates()
	if err != nil {
		return nil, "", false, err
	}
	if b, ok := m.seedOn(own); ok {
		return b, own + ":" + MediumPath, true, nil
	}
	for _, dev := range devs {
		if dev == own {
			continue
		}
		other, ok := m.seedOn(dev)
		switch {
		case !ok:
		case b == nil:
			b, from = other, dev
		case !bytes.Equal(b, other):
			return nil, "", true, fmt.Errorf("%w: %s and %s have %s, and neither is the disk that the node was started from: take one away", ErrSeveral, from, dev, MediumPath)
		}
	}
	if b != nil {
		return b, from + ":" + MediumPath, true, nil
	}
	return nil, "", len(devs) > 0, ErrNone
}

// seedOn reads the seed of one device.
func (m medium) seedOn(dev string) (b []byte, ok bool) { return m.fileOn(dev, MediumPath) }

func (m medium) fileOn(dev, path string) (b []byte, ok bool) {
	if dev == "" {
		return nil, false
	}
	err := m.mount(dev, func(dir string) (err error) {
		b, err = readLimited(filepath.Join(dir, path))
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.Warn("cannot look at a medium", "for", path, "device", dev, "err", err)
	}
	return b, err == nil
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b, nil
}

// mountVFAT brings the file system's modules where this is the first FAT that
// anybody looks at: a node without a disk does without them.
func mountVFAT(device string, read func(dir string) error) error {
	err := detached("vfat", device, read)
	if !errors.Is(err, unix.ENODEV) {
		return err
	}
	if lerr := kmod.LoadAll(fatModules); lerr != nil {
		return errors.Join(err, lerr)
	}
	return detached("vfat", device, read)
}

// fatModules are the file system and the character sets that it asks for.
var fatModules = []kmod.Wanted{{Name: "vfat"}, {Name: "nls_cp437"}, {Name: "nls_ascii"}, {Name: "nls_utf8", Optional: true}}

// detached shows a file system to read, read-only, in a mount that is attached
// to no folder: it is gone with its descriptor, also when the agent is killed in
// the middle. One that stayed attached would be in the next agent's way.
func detached(kind, device string, read func(dir string) error) (err error) {
	fail := func(what string, err error) error {
		return fmt.Errorf("mount %s as %s: %s: %w", device, kind, what, err)
	}
	config, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fail("fsopen", err)
	}
	defer func() { err = errors.Join(err, unix.Close(config)) }()
	if err := errors.Join(unix.FsconfigSetString(config, "source", device), unix.FsconfigSetFlag(config, "ro"), unix.FsconfigCreate(config)); err != nil {
		return fail("fsconfig", err)
	}
	mount, err := unix.Fsmount(config, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return fail("fsmount", err)
	}
	defer func() { err = errors.Join(err, unix.Close(mount)) }()
	return read(fmt.Sprintf("/proc/self/fd/%d", mount))
}
