// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/zos-node/zos/kernel/debian"
)

const (
	libDir  = "/usr/lib/x86_64-linux-gnu/"
	qemuBin = "/usr/bin/qemu-system-x86_64"
)

// firmware is what QEMU opens for -M microvm,acpi=on with PCI devices, by package.
var firmware = []struct{ pkg, path string }{
	{"seabios", "/usr/share/seabios/bios-microvm.bin"},
	{"qemu-system-data", "/usr/share/qemu/linuxboot_dma.bin"},
	{"qemu-system-data", "/usr/share/qemu/pvh.bin"},
}

// DebianQEMU is the fallback: Debian's QEMU with exactly the libraries that it
// names, found package by package along the Depends fields.
func (s *Source) DebianQEMU(ctx context.Context) (Hypervisor, error) {
	q := closure{source: s, ctx: ctx, packages: map[string]*unpacked{}, files: map[string]File{}}
	if err := s.prefetch(ctx, "qemu-system-x86", func(name string) bool {
		return !strings.HasPrefix(name, "linux-image-") && !strings.HasPrefix(name, "firmware-") && !strings.Contains(name, ":")
	}); err != nil {
		return Hypervisor{}, fmt.Errorf("hypervisor: %w", err)
	}
	top, err := q.unpack("qemu-system-x86")
	if err != nil {
		return Hypervisor{}, fmt.Errorf("hypervisor: %w", err)
	}
	bin, ok := top.files[qemuBin]
	if !ok {
		return Hypervisor{}, fmt.Errorf("hypervisor: package %s has no %s", top.pkg.Name, qemuBin)
	}
	if err := q.take(qemuBin, bin, top); err != nil {
		return Hypervisor{}, fmt.Errorf("hypervisor: %w", err)
	}
	for _, f := range firmware {
		if err := q.firmware(f.pkg, f.path); err != nil {
			return Hypervisor{}, fmt.Errorf("hypervisor: %w", err)
		}
	}
	h := Hypervisor{Name: "qemu", Version: top.pkg.Version, Source: "debian", Path: qemuBin}
	sum := sha256.Sum256(bin.Data)
	h.Digest = "sha256:" + hex.EncodeToString(sum[:])
	for _, f := range q.files {
		h.Files = append(h.Files, f)
	}
	sort.Slice(h.Files, func(i, j int) bool { return h.Files[i].Path < h.Files[j].Path })
	return h, nil
}

// unpacked is a package with the files that may be needed from it.
type unpacked struct {
	pkg     debian.Package
	files   map[string]File
	depends [][]string
}

type closure struct {
	source   *Source
	ctx      context.Context
	packages map[string]*unpacked
	order    []string
	files    map[string]File
}

// unpack reads a package's programs, libraries and firmware.
func (q *closure) unpack(name string) (*unpacked, error) {
	if u, ok := q.packages[name]; ok {
		return u, nil
	}
	p, file, err := q.source.Package(q.ctx, name, nil)
	if err != nil {
		return nil, err
	}
	u := &unpacked{pkg: p, files: map[string]File{}}
	fields, err := debian.Control(q.ctx, file)
	if err != nil {
		return nil, err
	}
	u.depends = append(Depends(fields["Pre-Depends"]), Depends(fields["Depends"])...)
	err = debian.Walk(q.ctx, file, func(name string, hdr *tar.Header, r io.Reader) error {
		if strings.HasPrefix(name, "/lib") {
			name = "/usr" + name // one spelling, as on a merged system
		}
		if !strings.HasPrefix(name, libDir) && !strings.HasPrefix(name, "/usr/share/seabios/") && !strings.HasPrefix(name, "/usr/share/qemu/") &&
			!strings.HasPrefix(name, "/usr/lib/ipxe/") && name != qemuBin {
			return nil
		}
		switch hdr.Typeflag {
		case tar.TypeReg:
			b, err := io.ReadAll(r)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			u.files[name] = File{Path: name, Mode: uint64(hdr.Mode) & 0o755, Data: b, Package: p}
		case tar.TypeSymlink:
			u.files[name] = File{Path: name, Link: hdr.Linkname, Package: p}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	q.packages[name] = u
	q.order = append(q.order, name)
	return u, nil
}

// take adds one ELF file and all that it needs.
func (q *closure) take(name string, f File, from *unpacked) error {
	if _, ok := q.files[name]; ok {
		return nil
	}
	q.files[name] = f
	interp, libs, err := needs(f.Data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if interp != "" {
		// The loader is libc's; the program names it by a path of its own.
		if err := q.library(path.Base(interp), interp, from); err != nil {
			return err
		}
	}
	for _, lib := range libs {
		if err := q.library(lib, libDir+lib, from); err != nil {
			return fmt.Errorf("%s needs %s: %w", name, lib, err)
		}
	}
	return nil
}

// library finds a library in from or in a package that from depends on, and
// puts it where as is: links resolved, one file per library.
func (q *closure) library(lib, as string, from *unpacked) error {
	if _, ok := q.files[as]; ok {
		return nil
	}
	owner, f, err := q.find(lib, from)
	if err != nil {
		return err
	}
	f.Path, f.Mode = as, 0o755
	return q.take(as, f, owner)
}

var errNoLibrary = errors.New("in no package that it depends on")

// find tries the packages at hand, then those whose name fits the library's,
// then all other dependencies: Debian's own rule is that a library's package
// stands among the direct dependencies.
func (q *closure) find(lib string, from *unpacked) (*unpacked, File, error) {
	for _, name := range append([]string{}, q.order...) {
		if f, ok := q.packages[name].resolve(lib); ok {
			return q.packages[name], f, nil
		}
	}
	var fitting, others, rest []string
	for _, group := range from.depends {
		switch name := group[0]; {
		case plain(name) == plain(strings.Replace(lib, ".so.", "", 1)):
			fitting = append(fitting, name)
		case strings.HasPrefix(name, "lib"):
			others = append(others, name)
		default:
			rest = append(rest, name) // zlib1g
		}
	}
	for _, name := range slices.Concat(fitting, others, rest) {
		u, err := q.unpack(name)
		if err != nil {
			return nil, File{}, err
		}
		if f, ok := u.resolve(lib); ok {
			return u, f, nil
		}
	}
	return nil, File{}, errNoLibrary
}

// resolve follows links inside a package.
func (u *unpacked) resolve(lib string) (File, bool) {
	name := libDir + lib
	for range 4 {
		f, ok := u.files[name]
		if !ok {
			return File{}, false
		}
		if f.Link == "" {
			return f, true
		}
		name = path.Join(path.Dir(name), f.Link)
	}
	return File{}, false
}

// plain strips a name to what package and library names share:
// libglib-2.0.so.0 and libglib2.0-0t64 are both libglib200.
func plain(name string) string {
	name = strings.TrimSuffix(strings.ToLower(name), "t64")
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '+' {
			return r
		}
		return -1
	}, name)
}

func (q *closure) firmware(pkg, name string) error {
	u, err := q.unpack(pkg)
	if err != nil {
		return err
	}
	f, ok := u.files[name]
	for range 4 {
		if !ok || f.Link == "" {
			break
		}
		target := f.Link
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(f.Path), target)
		}
		f, ok = u.files[target]
	}
	if !ok {
		return fmt.Errorf("package %s has no %s", pkg, name)
	}
	f.Path = name
	q.files[name] = f
	return nil
}
