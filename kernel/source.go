// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/zos-node/zos/kernel/debian"
)

// Suite is the Debian release that all packages come from.
const Suite = "trixie"

// Options say where a Source keeps what it has.
type Options struct {
	Cache    string // folder for package lists and packages
	Lock     string // committed lock file; read only
	WorkLock string // where a fresh resolution is written when the lock no longer holds
	Arch     string // Debian's name: "amd64"
	Log      *slog.Logger
}

// Source hands out the packages of one lock.
type Source struct {
	opt      Options
	archive  *debian.Archive
	lock     debian.Lock // what this build uses
	releases []Release
	files    map[string]string
	anew     bool // the lock did not hold; everything is resolved again
}

// Open reads the locks. A work lock of an earlier build is taken only while
// the committed lock does not hold: the first package that is asked for decides.
func Open(opt Options) (*Source, error) {
	if opt.Arch == "" {
		opt.Arch = "amd64"
	}
	if opt.Arch != "amd64" {
		opt.Cache += "-" + opt.Arch // apt's own files are of one architecture
	}
	archive, err := debian.Open(opt.Cache, Suite, opt.Arch, opt.Log)
	if err != nil {
		return nil, err
	}
	lock, err := ReadLock(opt.Lock)
	if err != nil {
		return nil, err
	}
	return &Source{opt: opt, archive: archive, lock: lock.Packages, releases: lock.Releases, files: map[string]string{}}, nil
}

// Used is the lock that describes what this source handed out.
func (s *Source) Used() debian.Lock { return maps.Clone(s.lock) }

// Package returns the file of the package that wanted stands for. resolve
// maps a metapackage to the real one; nil for ordinary packages.
func (s *Source) Package(ctx context.Context, wanted string, resolve func(context.Context, *debian.Archive) (string, error)) (debian.Package, string, error) {
	key := s.key(wanted)
	if p, ok := s.lock[key]; ok {
		path, err := s.archive.Fetch(ctx, p)
		if !errors.Is(err, debian.ErrGone) {
			return p, path, err
		}
		if err := s.fall(ctx, wanted, err); err != nil {
			return debian.Package{}, "", err
		}
		if p, ok := s.lock[key]; ok {
			path, err := s.archive.Fetch(ctx, p)
			if !errors.Is(err, debian.ErrGone) {
				return p, path, err
			}
			s.lock = debian.Lock{}
		}
	}
	name := wanted
	if resolve != nil {
		var err error
		if name, err = resolve(ctx, s.archive); err != nil {
			return debian.Package{}, "", err
		}
	}
	p, err := s.archive.Resolve(ctx, name)
	if err != nil {
		return debian.Package{}, "", err
	}
	path, err := s.archive.Fetch(ctx, p)
	if err != nil {
		return debian.Package{}, "", err
	}
	s.lock[key] = p
	return p, path, s.lock.Write(s.opt.WorkLock, Suite)
}

// key is a package's name in the lock, which is one for all architectures.
func (s *Source) key(wanted string) string {
	if s.opt.Arch == "amd64" {
		return wanted
	}
	return wanted + ":" + s.opt.Arch
}

// prefetch gets the locked packages that want takes at once, if the lock
// knows first.
func (s *Source) prefetch(ctx context.Context, first string, want func(name string) bool) error {
	if _, ok := s.lock[first]; !ok {
		return nil
	}
	var all []debian.Package
	for name, p := range s.lock {
		if want(name) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b debian.Package) int { return strings.Compare(a.Name, b.Name) })
	return s.archive.Prefetch(ctx, all)
}

// fall leaves the committed lock, whole: packages of two moments are not mixed.
func (s *Source) fall(_ context.Context, wanted string, cause error) error {
	if s.anew {
		return nil
	}
	s.anew = true
	s.opt.Log.Warn("THE LOCK NO LONGER HOLDS: resolving all packages anew; the image will differ from the one the lock describes",
		"part", "kernel", "lock", s.opt.Lock, "package", wanted, "err", cause, "written", s.opt.WorkLock)
	work, err := debian.ReadLock(s.opt.WorkLock)
	if err != nil {
		return err
	}
	s.lock = work
	return nil
}

// writeFile writes content for others to read, whole or not at all.
func writeFile(path string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	tmp := path + ".part"
	if err := os.WriteFile(tmp, content, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Chmod(tmp, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Log is where the source speaks.
func (s *Source) Log() *slog.Logger { return s.opt.Log }

// Arch is the architecture of all packages, by Debian's name.
func (s *Source) Arch() string { return s.opt.Arch }
