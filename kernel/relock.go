// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
)

// Wanted is what the lock has to hold for a board.
type Wanted struct {
	Arch     string
	Kernels  []string // metapackages
	Firmware []string // packages
}

// Relock resolves all packages anew, at one moment, and replaces the lock
// file: those of the boards, and those that the old lock has for others. What
// is in the archive is what Debian's signed lists say. releases, which
// CheckReleases has looked at, stand in it as they are.
func Relock(ctx context.Context, cache, file string, boards []Wanted, releases []Release, log *slog.Logger) (Lockfile, error) {
	old, err := ReadLock(file)
	if err != nil {
		return Lockfile{}, err
	}
	fresh := file + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Lockfile{}, fmt.Errorf("lock: %w", err)
	}
	open := func(arch string) (*Source, error) {
		return Open(Options{Cache: cache, Lock: fresh, WorkLock: fresh, Arch: arch, Log: log})
	}
	for _, b := range boards {
		s, err := open(b.Arch)
		if err != nil {
			return Lockfile{}, err
		}
		for _, k := range b.Kernels {
			if _, err := s.Linux(ctx, k); err != nil {
				return Lockfile{}, err
			}
		}
		if _, err := s.EFI(ctx); err != nil {
			return Lockfile{}, err
		}
		if _, err := s.Firmware(ctx, b.Firmware, nil); err != nil {
			return Lockfile{}, err
		}
		if b.Arch == "amd64" {
			if _, err := s.DebianQEMU(ctx); err != nil {
				return Lockfile{}, err
			}
		}
	}
	s, err := open("amd64")
	if err != nil {
		return Lockfile{}, err
	}
	var rest []string
	for wanted := range old.Packages {
		if _, ok := s.lock[wanted]; !ok && !strings.Contains(wanted, ":") {
			rest = append(rest, wanted)
		}
	}
	slices.Sort(rest)
	for _, wanted := range rest {
		if _, _, err := s.Package(ctx, wanted, nil); err != nil {
			return Lockfile{}, fmt.Errorf("lock: %s, which the old lock has: %w", wanted, err)
		}
	}
	l := Lockfile{Packages: s.Used(), Releases: releases}
	if err := writeFile(file, l.Bytes(), 0o644); err != nil {
		return Lockfile{}, fmt.Errorf("lock: %w", err)
	}
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Lockfile{}, fmt.Errorf("lock: %w", err)
	}
	return l, nil
}
