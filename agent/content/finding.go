// SPDX-License-Identifier: Apache-2.0

package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/zos-node/zos/zimage"
)

// Finding is a file of the store that is not what its name says. It was
// verified before it got that name, so something has changed it since.
type Finding struct {
	Path       string
	Quarantine string  // where it goes
	Owners     []int64 // deployments that need it, and may run from it
	Err        error
}

// String is the finding as an incident tells it.
func (f Finding) String() string {
	return fmt.Sprintf("%s: %v; it goes into quarantine as %s", f.Path, f.Err, f.Quarantine)
}

// condemn takes a wrong file out of use, after that was recorded. VMs that have
// it open are not touched by that: Found ends them.
func (s *Store) condemn(path string, why error) error {
	s.mu.Lock()
	f := Finding{Path: path, Quarantine: s.quarantine(path), Owners: s.owners(path), Err: why}
	s.counts.found++
	s.mu.Unlock()
	s.Log.Error("a file of the store is not what it was when it was verified", "file", path, "err", why, "quarantine", f.Quarantine)
	if s.Found != nil {
		if err := s.Found(f); err != nil {
			return fmt.Errorf("record that %s is wrong (%w): %w", path, why, err)
		}
	}
	if err := os.Rename(path, f.Quarantine); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("quarantine: %w", err)
	}
	s.say()
	return nil
}

func (s *Store) quarantine(path string) string {
	return filepath.Join(s.Dir, quarantineDir, fmt.Sprintf("%d-%s", time.Now().UnixNano(), filepath.Base(path)))
}

// Quarantine takes a disk file out of use that a guest found wrong, and keeps
// it to be looked at. record hears first where it will be and what is wrong
// with its bytes, if anything is; its error leaves the file where it is.
func (s *Store) Quarantine(path string, record func(detail string) error) error {
	release, err := s.take(context.Background(), path)
	if err != nil {
		return err
	}
	defer release()
	to := s.quarantine(path)
	detail := "disk file in quarantine as " + to + ": "
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return record("the disk file is out of use already")
	}
	switch err := s.examine(path); {
	case err == nil:
		detail += "its bytes are right, so the fault is not in the file"
	default:
		detail += err.Error()
	}
	if err := record(detail); err != nil {
		return err
	}
	if err := os.Rename(path, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("quarantine: %w", err)
	}
	s.say()
	return nil
}

// examine hashes an image's disk.
func (s *Store) examine(path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w, err := want(path, s.kept)
	if err != nil {
		return fmt.Errorf("it cannot be examined: %w", err)
	}
	w.Goroutines = runtime.GOMAXPROCS(0)
	return s.Check(f, w)
}

// want is what a finished file has to be, by its name and its manifest.
func want(path string, manifest func(id string) (zimage.Manifest, error)) (Want, error) {
	name, image := strings.CutSuffix(filepath.Base(path), imageExt)
	w := Want{Digest: "sha256:" + name, Goroutines: 1}
	if !image {
		return w, nil
	}
	m, err := manifest(w.Digest)
	w.Image = &m
	return w, err
}
