// SPDX-License-Identifier: Apache-2.0

package content

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/google/renameio/v2"
)

// Pin keeps files from being evicted for as long as a deployment, the owner,
// needs them, also when the agent dies. It comes before Blob and Image, so that
// what was just verified cannot go away.
func (s *Store) Pin(owner int64, paths ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := maps.Clone(s.pins[owner])
	if all == nil {
		all = map[string]bool{}
	}
	for _, p := range paths {
		name, err := filepath.Rel(s.Dir, p)
		if err != nil {
			return fmt.Errorf("pin: %w", err)
		}
		all[name] = true
	}
	if maps.Equal(all, s.pins[owner]) {
		return nil
	}
	b, err := json.Marshal(slices.Sorted(maps.Keys(all)))
	if err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	path := s.pinPath(owner)
	if err := renameio.WriteFile(path, b, 0o600); err != nil {
		return s.full(path, fmt.Errorf("pin: %w", err))
	}
	s.pins[owner] = all
	return nil
}

// Unpin ends the pins of a deployment. Its files were in use until now.
func (s *Store) Unpin(owner int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unpin(owner)
}

func (s *Store) unpin(owner int64) error {
	for name := range s.pins[owner] {
		s.touch(filepath.Join(s.Dir, name))
	}
	if err := os.Remove(s.pinPath(owner)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unpin: %w", err)
	}
	delete(s.pins, owner)
	return nil
}

// Retain ends the pins of all deployments but these: an agent that died may
// have left pins of one that it had just ended.
func (s *Store) Retain(owners ...int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for owner := range s.pins {
		if slices.Contains(owners, owner) {
			continue
		}
		if err := s.unpin(owner); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) pinPath(owner int64) string {
	return filepath.Join(s.Dir, pinsDir, strconv.FormatInt(owner, 10))
}

// loadPins reads what an earlier agent had pinned. A file that cannot be read
// is an error: without it something that runs might be evicted.
func (s *Store) loadPins() error {
	list, err := os.ReadDir(filepath.Join(s.Dir, pinsDir))
	if err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	for _, e := range list {
		path := filepath.Join(s.Dir, pinsDir, e.Name())
		owner, err := strconv.ParseInt(e.Name(), 10, 64)
		if err != nil { // the temporary file of an agent that died
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("pins: %w", err)
			}
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("pins: %w", err)
		}
		var names []string
		if err := json.Unmarshal(b, &names); err != nil {
			return fmt.Errorf("pins of deployment %d: %w", owner, err)
		}
		s.pins[owner] = map[string]bool{}
		for _, n := range names {
			s.pins[owner][n] = true
		}
	}
	return nil
}

// owners are the deployments that need a file. s.mu is held.
func (s *Store) owners(path string) []int64 {
	name, err := filepath.Rel(s.Dir, path)
	if err != nil {
		return nil
	}
	var all []int64
	for owner, names := range s.pins {
		if names[name] {
			all = append(all, owner)
		}
	}
	slices.Sort(all)
	return all
}
