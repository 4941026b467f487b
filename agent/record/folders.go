// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
)

// folders are where the queue's files stand: on the node's disk, and in memory
// what that does not take, since it is full or broken. What a node has to say then is
// that, above all.
type folders struct {
	kept, spill string // spill may be ""
	spilled     map[string]bool
	log         *slog.Logger
}

// openFolders makes them, and takes away half files of an agent or a machine that
// stopped.
func openFolders(kept, spill string, log *slog.Logger) (*folders, []string, error) {
	f := &folders{kept, spill, map[string]bool{}, log}
	var names []string
	for _, dir := range []string{kept, spill} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, nil, fmt.Errorf("records: %w", err)
		}
		list, err := os.ReadDir(dir)
		if err != nil {
			return nil, nil, fmt.Errorf("records: %w", err)
		}
		for _, e := range list {
			name := e.Name()
			switch {
			case strings.HasPrefix(name, "."):
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					return nil, nil, fmt.Errorf("records: %w", err)
				}
			case !strings.HasSuffix(name, refusedExt):
				names = append(names, name)
				f.spilled[name] = dir == spill
			}
		}
	}
	slices.Sort(names) // entries in the order of their numbers
	return f, slices.Compact(names), nil
}

// path is where a file is: what was spilled is newer than what the disk has of
// that name.
func (f *folders) path(name string) string {
	if f.spilled[name] {
		return filepath.Join(f.spill, name)
	}
	return filepath.Join(f.kept, name)
}

func (f *folders) read(name string) ([]byte, error) { return os.ReadFile(f.path(name)) }

// write makes a file and its name last, or at least be there.
func (f *folders) write(name string, b []byte) error {
	err := durable(f.kept, name, b)
	if err == nil {
		if f.spilled[name] {
			delete(f.spilled, name)
			err = os.Remove(filepath.Join(f.spill, name))
		}
		return err
	}
	if f.spill == "" {
		return err
	}
	f.log.Error("a record cannot be kept on the node's disk, it is kept in memory and lost if the node ends before it is on the ledger", "file", name, "err", err)
	if err := durable(f.spill, name, b); err != nil {
		return err
	}
	f.spilled[name] = true
	return nil
}

func durable(dir, name string, b []byte) error {
	if err := renameio.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// remove takes a file away, from wherever it is.
func (f *folders) remove(name string) error {
	err := os.Remove(filepath.Join(f.kept, name))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if f.spilled[name] {
		err = errors.Join(err, os.Remove(filepath.Join(f.spill, name)))
	}
	delete(f.spilled, name)
	return err
}

// aside keeps a file to be looked at, unless there are enough of them.
func (f *folders) aside(name string) error {
	path := f.path(name)
	old, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"+refusedExt))
	if err != nil {
		return err
	}
	if len(old) >= maxRefused {
		return f.remove(name)
	}
	delete(f.spilled, name)
	return os.Rename(path, strings.TrimSuffix(path, entryExt)+refusedExt)
}
