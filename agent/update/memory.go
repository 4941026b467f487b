// SPDX-License-Identifier: Apache-2.0

package update

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/zos-node/zos/agent/update/fat"
	"github.com/zos-node/zos/spec/strict"
)

// memory is what stands beside the images: it is read before anything else is
// there, by whichever version starts, also on a node without state that stays.
type memory struct {
	Rollout int64  `json:"rollout"` // that Version came with; -1: none yet
	Version string `json:"version"` // that was put in place last
	// State is how that stands; one of the words below.
	State  string `json:"state"`
	Reason string `json:"reason"` // of State, or how far the trial got, for people
	// Told says that the ledger has State.
	Told bool `json:"told"`
	// Tried are the last rollouts that this node failed with.
	Tried []int64 `json:"tried"`
}

const (
	stateNone    = ""
	stateWritten = "written" // in place, or about to be; its trial has not begun, or nobody noted it
	stateTrial   = "trial"   // its agent came up, and is not blessed
	stateBlessed = "blessed"
	stateBack    = "rolled-back"
	stateFailed  = "failed" // it could not be put in place
)

const (
	maxMemory = 16 << 10
	maxTried  = 64
	maxReason = 2 << 10
)

func empty() memory { return memory{Rollout: -1, Tried: []int64{}} }

// load reads the memory. One that cannot be read is none: the images' names say
// what is needed, and the ledger remembers failures too.
func load(v *fat.Volume) (memory, error) {
	r, err := v.Open(memoryPath)
	if errors.Is(err, fs.ErrNotExist) {
		return empty(), nil
	}
	if err != nil {
		return empty(), err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxMemory+1))
	if err != nil {
		return empty(), fmt.Errorf("%s: %w", memoryPath, err)
	}
	var m memory
	if err := strict.Decode(bytes.TrimSpace(b), &m, maxMemory); err != nil {
		return empty(), fmt.Errorf("%s: %w", memoryPath, err)
	}
	return m, nil
}

// save writes it whole or not at all.
func (m memory) save(v *fat.Volume) error {
	if n := len(m.Reason); n > maxReason {
		m.Reason = string(bytes.ToValidUTF8([]byte(m.Reason[n-maxReason:]), nil))
	}
	if n := len(m.Tried); n > maxTried {
		m.Tried = m.Tried[n-maxTried:]
	}
	b, err := strict.Encode(m)
	if err != nil {
		return fmt.Errorf("%s: %w", memoryPath, err)
	}
	if err := v.Overwrite(newPath, bytes.NewReader(b), int64(len(b))); err != nil {
		return err
	}
	return v.Rename(newPath, memoryPath)
}

// failed notes that the rollout is not tried again.
func (m *memory) failed(state, reason string) {
	m.State, m.Reason, m.Told = state, reason, false
	if !slices.Contains(m.Tried, m.Rollout) {
		m.Tried = append(m.Tried, m.Rollout)
	}
}
