// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/zos-node/zos/image/fat32"
)

// ErrMedium says that a file is no medium of ours.
var ErrMedium = errors.New("not a node image")

// Kinds of media, as Open tells them.
const (
	KindUKI  = "uki"
	KindDisk = "disk"
	KindISO  = "iso"
)

// Medium is an image file that was looked into.
type Medium struct {
	Kind   string
	Sector int    // of disk and ISO
	Boot          // of a UKI: the UKI alone
	Path   string // of the UKI on the boot partition, "" of a UKI alone
	start  int64
	size   int64  // of the boot partition
	slots  []slot // every UKI on it
	update string // a file that only updates leave there
	conf   []byte // of the loader
}

// slot is one UKI on a boot partition: an update has its own beside the one that
// it replaces.
type slot struct {
	path, version string
	uki           []byte
}

// left are files that a node's updates leave on its boot partition
// (agent/update).
var left = []string{"/EFI/Linux/zos-next.part", "/loader/zos-update.json", "/loader/zos-update.new"}

// Open reads a UKI, a disk image (or the disk itself), or an ISO, as it was
// built: with one UKI, and nothing of an update.
func Open(name string) (*Medium, error) {
	m, err := open(name)
	if err != nil {
		return nil, err
	}
	if len(m.slots) > 1 {
		return nil, fmt.Errorf("%s: %w: two UKIs on one medium", name, ErrMedium)
	}
	if m.update != "" {
		return nil, fmt.Errorf("%s: %w: unexpected file %s on its boot partition", name, ErrMedium, m.update)
	}
	return m, nil
}

// OpenAll reads the same, and the disk of a node that has been updated: one
// Medium for each UKI, by the order of their paths.
func OpenAll(name string) ([]*Medium, error) {
	m, err := open(name)
	if err != nil {
		return nil, err
	}
	if m.Kind == KindUKI {
		return []*Medium{m}, nil
	}
	slices.SortFunc(m.slots, func(a, b slot) int { return strings.Compare(a.path, b.path) })
	all := make([]*Medium, len(m.slots))
	for i, s := range m.slots {
		one := *m
		one.Path, one.Version, one.UKI = s.path, s.version, s.uki
		all[i] = &one
	}
	return all, nil
}

func open(name string) (*Medium, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

func read(f *os.File) (*Medium, error) {
	head := make([]byte, 2)
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMedium, err)
	}
	if string(head) == "MZ" {
		b, err := io.ReadAll(f)
		if err != nil {
			return nil, err
		}
		if _, err := ReadUKI(b); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMedium, err)
		}
		return &Medium{Kind: KindUKI, Boot: Boot{UKI: b}}, nil
	}
	m := &Medium{Kind: KindDisk}
	for _, sector := range []int{512, 4096} {
		t, err := gpt.Read(file.New(f, true), sector, sector)
		if err != nil {
			continue
		}
		for _, p := range t.Partitions {
			if p.Type == gpt.EFISystemPartition {
				m.Sector, m.start, m.size = sector, int64(p.Start)*int64(sector), int64(p.End-p.Start+1)*int64(sector)
				break
			}
		}
	}
	if m.size == 0 {
		return nil, fmt.Errorf("%w: neither a UKI nor a disk with an EFI system partition", ErrMedium)
	}
	iso := make([]byte, 5)
	if _, err := f.ReadAt(iso, 16*2048+1); err == nil && string(iso) == "CD001" {
		m.Kind = KindISO
	}
	files, err := fat32.Read(f, m.start, m.size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMedium, err)
	}
	return m, m.take(files)
}

// take sorts the files of a boot partition.
func (m *Medium) take(files []fat32.File) error {
	for _, f := range files {
		if slices.Contains(left, f.Path) {
			m.update = f.Path
			continue
		}
		dir, name := path.Split(f.Path)
		version, isUKI := strings.CutPrefix(name, "zos-")
		switch {
		case dir == "/EFI/BOOT/":
			m.Loader = f.Content
			for _, a := range []string{"amd64", "arm64"} {
				if n, err := efiArch(a); err == nil && strings.EqualFold(name, "BOOT"+n+".EFI") {
					m.Arch = a
				}
			}
		case dir == "/EFI/Linux/" && isUKI:
			version = strings.TrimSuffix(version, ".efi")
			m.slots = append(m.slots, slot{f.Path, version, f.Content})
			m.UKI, m.Version, m.Path = f.Content, version, f.Path
		case f.Path == seedPath:
			m.Seed = f.Content
		case path.Dir(f.Path) == keysDir:
			if m.Keys == nil {
				m.Keys = map[string][]byte{}
			}
			m.Keys[name] = f.Content
		case f.Path == confPath: // follows from the rest
			m.conf = f.Content
		default:
			return fmt.Errorf("%w: unexpected file %s on its boot partition", ErrMedium, f.Path)
		}
	}
	if m.Arch == "" || m.UKI == nil {
		return fmt.Errorf("%w: its boot partition has no loader or no UKI", ErrMedium)
	}
	return nil
}

// write makes a medium of the same kind and size.
func (m *Medium) write(name string) error {
	switch m.Kind {
	case KindDisk:
		return Disk{Boot: m.Boot, ESPMiB: m.size / mib, Sector: m.Sector}.Write(name)
	case KindISO:
		return ISO{m.Boot}.Write(name)
	}
	return fmt.Errorf("%w: a UKI alone has no boot partition", ErrMedium)
}

// Rewrite makes a copy of a medium with a change to its boot partition.
func Rewrite(from, to string, change func(*Boot)) error {
	m, err := Open(from)
	if err != nil {
		return err
	}
	change(&m.Boot)
	return m.write(to)
}

// Same says that two media boot the same: everything but their seeds.
func (m *Medium) Same(o *Medium) bool {
	return bytes.Equal(m.UKI, o.UKI) && bytes.Equal(m.Loader, o.Loader) && m.Arch == o.Arch
}
