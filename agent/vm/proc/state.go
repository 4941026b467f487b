// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/zos-node/zos/agent/vm"
)

// State is what a restarted agent needs to find a VMM again. BootID and
// StartTicks make the pid unmistakable: a pid is used again, a pid with its
// start time within one boot is not.
type State struct {
	Driver     string     `json:"driver"`
	ID         string     `json:"id"`
	PID        int        `json:"pid"`
	StartTicks uint64     `json:"startTicks"` // field 22 of /proc/<pid>/stat
	BootID     string     `json:"bootID"`     // of the node
	Landlock   int        `json:"landlock"`   // ABI version of the ruleset that the agent put on it
	User       uint32     `json:"user"`       // uid that it was started with
	Net        bool       `json:"net"`        // it shares the node's network
	Offset     int64      `json:"offset"`     // in the event file; everything before it is in Seen or without meaning
	Seen       []vm.Event `json:"seen"`       // delivered before, delivered again to an agent that adopts
}

func readState(dir string) (State, error) {
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return State{}, fmt.Errorf("state of the VM: %w", err)
	}
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, fmt.Errorf("state of the VM in %s: %w", dir, err)
	}
	if s.PID <= 1 || s.ID == "" {
		return State{}, fmt.Errorf("state of the VM in %s: no process", dir)
	}
	return s, nil
}

// writeState replaces the file at once: an agent that dies here leaves the old
// one or the new one.
func (p *Process) writeState() error {
	b, err := json.Marshal(p.state)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	name := filepath.Join(p.dir, stateFile)
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// startTicks reads when a process was started, in clock ticks since boot.
func startTicks(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("start time: %w", err)
	}
	return parseStartTicks(string(b))
}

// parseStartTicks looks behind the last ")": the program's name is in
// parentheses and may itself contain spaces and parentheses.
func parseStartTicks(stat string) (uint64, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const behindName = 22 - 3 // the first field behind the name is number 3
	if len(fields) <= behindName {
		return 0, fmt.Errorf("start time: %d fields in stat", len(fields))
	}
	n, err := strconv.ParseUint(fields[behindName], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("start time: %w", err)
	}
	return n, nil
}
