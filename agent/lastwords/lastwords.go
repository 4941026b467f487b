// SPDX-License-Identifier: Apache-2.0

// Package lastwords brings onto the ledger what happened to the node itself: a
// kernel that panicked, an agent that died, memory that ran out. init leaves
// one file per report (init/lastwords says where they come from); what a report
// is about stays stored, over any number of restarts, until its entry stands on
// the ledger. A report may be told twice when the agent dies in between; it is
// never lost.
package lastwords

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// Dir is where init leaves reports.
const Dir = "/run/lastwords"

const (
	leftExt = ".json" // init's
	toldExt = ".told" // its incident is in the queue of records
)

// report is one file of init's.
type report struct {
	Kind   string   `json:"kind"`   // of the incident
	Detail string   `json:"detail"` // for people
	Files  []string `json:"files"`  // what is removed once the incident stands on the ledger
}

// Taker takes reports up.
type Taker struct {
	Dir      string
	Log      *slog.Logger
	Incident func(kind, detail string) error // queues one
	Waiting  func() int                      // entries that are not on the ledger yet
}

// Take queues what is new, and forgets what stands on the ledger. It is called
// again and again; between two calls nothing is kept but files.
func (t *Taker) Take() error {
	list, err := os.ReadDir(t.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no init: a test, or a run by hand
	}
	if err != nil {
		return fmt.Errorf("reports: %w", err)
	}
	// Those that were queued at an earlier call have left the queue with it.
	done := t.Waiting() == 0
	for _, e := range list {
		path := filepath.Join(t.Dir, e.Name())
		switch name := e.Name(); {
		case strings.HasPrefix(name, "."): // being written
		case strings.HasSuffix(name, leftExt):
			if err := t.queue(path); err != nil {
				return err
			}
		case strings.HasSuffix(name, toldExt) && done:
			if err := t.forget(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func read(path string) (report, error) {
	var r report
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return r, fmt.Errorf("report %s: %w", filepath.Base(path), err)
	}
	return r, nil
}

func (t *Taker) queue(path string) error {
	r, err := read(path)
	if err != nil {
		return err
	}
	reason, _, _ := strings.Cut(r.Detail, "\n")
	t.Log.Warn("what happened to this node goes onto the ledger", "kind", r.Kind, "reason", reason)
	if err := t.Incident(r.Kind, r.Detail); err != nil {
		return fmt.Errorf("report of %s: %w", r.Kind, err)
	}
	told := strings.TrimSuffix(path, leftExt) + toldExt
	// The same thing may have been told before and not be on the ledger yet: its
	// files go with the newer.
	if old, err := read(told); err == nil && len(old.Files) > 0 {
		r.Files = append(old.Files, r.Files...)
		b, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("report of %s: %w", r.Kind, err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return fmt.Errorf("report of %s: %w", r.Kind, err)
		}
	}
	if err := os.Rename(path, told); err != nil {
		return fmt.Errorf("report of %s: %w", r.Kind, err)
	}
	return nil
}

func (t *Taker) forget(path string) error {
	r, err := read(path)
	if err != nil {
		return err
	}
	for _, f := range r.Files {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget what the ledger knows of %s: %w", r.Kind, err)
		}
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("forget what the ledger knows of %s: %w", r.Kind, err)
	}
	t.Log.Info("the ledger knows what happened to this node", "kind", r.Kind, "forgotten", len(r.Files))
	return nil
}
