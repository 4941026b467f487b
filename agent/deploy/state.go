// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/zos-node/zos/agent/guestlink"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/agent/plan"
)

// State is what an agent must know of a deployment to adopt or undo it.
type State struct {
	Deployment  int64                         `json:"deployment"`
	Claim       int64                         `json:"claim"`
	Name        string                        `json:"name"`
	Digest      string                        `json:"digest"` // of the spec
	Slot        int                           `json:"slot"`
	OnPartition string                        `json:"onPartition"`
	Phase       phase.Name                    `json:"phase"`   // the last that was begun
	Running     bool                          `json:"running"` // all phases are done
	Lease       time.Duration                 `json:"lease"`
	LeaseUntil  time.Time                     `json:"leaseUntil"`
	Plan        *plan.Plan                    `json:"plan"` // nil before its phase
	Guests      map[string]guestlink.Identity `json:"guests"`
	Restarts    map[string]int64              `json:"restarts"`
	Owes        bool                          `json:"owes"`   // a record that it serves, again or at all
	Ending      *Ending                       `json:"ending"` // set once the end has begun
}

func statesDir(runDir string) string { return filepath.Join(runDir, "state", "deployments") }

func statePath(runDir string, deployment int64) string {
	return filepath.Join(statesDir(runDir), strconv.FormatInt(deployment, 10)+".json")
}

func (s *State) save(runDir string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("state of deployment %d: %w", s.Deployment, err)
	}
	if err := os.MkdirAll(statesDir(runDir), 0o700); err != nil {
		return fmt.Errorf("state of deployment %d: %w", s.Deployment, err)
	}
	if err := renameio.WriteFile(statePath(runDir, s.Deployment), b, 0o600); err != nil {
		return fmt.Errorf("state of deployment %d: %w", s.Deployment, err)
	}
	return nil
}

func (s *State) remove(runDir string) error {
	if err := os.Remove(statePath(runDir, s.Deployment)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("state of deployment %d: %w", s.Deployment, err)
	}
	return nil
}

// States reads what an earlier agent left.
func States(runDir string) ([]*State, error) {
	list, err := os.ReadDir(statesDir(runDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("states of deployments: %w", err)
	}
	var all []*State
	for _, e := range list {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue // a temporary file of an agent that died
		}
		b, err := os.ReadFile(filepath.Join(statesDir(runDir), e.Name()))
		if err != nil {
			return nil, fmt.Errorf("states of deployments: %w", err)
		}
		s := &State{}
		if err := json.Unmarshal(b, s); err != nil {
			return nil, fmt.Errorf("state %s: %w", e.Name(), err)
		}
		all = append(all, s)
	}
	return all, nil
}

// Ending is why a deployment ends on this node.
type Ending struct {
	Result  string `json:"result"`  // of the close entry: "stopped", "replaced", "failed" or "released"
	Reason  string `json:"reason"`  // for people
	Release bool   `json:"release"` // give the claim back, so that it is tried again here or elsewhere
	Kill    bool   `json:"kill"`    // at once, without asking the guests
}

func (e *Ending) Error() string { return e.Reason }
