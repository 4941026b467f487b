// SPDX-License-Identifier: Apache-2.0

package update

import (
	"fmt"

	"github.com/zos-node/zos/ledger"
)

// deed is what a start has to do about the update before it.
type deed int

const (
	nothing deed = iota
	trial        // this is the trial: prove health, or go back
	again        // the trial has not begun: start the machine into it, for one of its tries
	noted        // an end that the memory has not got yet
)

// judge says how the last update came out, when the node has started again (or
// only its agent has). It is pure: names of images, memory, and what runs.
func judge(all []file, m memory, running string) (memory, deed) {
	mine := named(all, running)
	if mine != nil && mine.Counted && mine.Version == m.Version {
		if m.State != stateTrial {
			m.State, m.Reason = stateTrial, ""
		}
		return m, trial
	}
	if mine != nil && mine.Counted {
		// The loader tries what nobody here remembers to have put in place: a
		// memory that was lost. It proves itself like any other.
		m = memory{Rollout: -1, Version: running, State: stateTrial, Told: true, Tried: m.Tried}
		return m, trial
	}
	switch m.State {
	case stateWritten, stateTrial:
	default:
		return m, nothing
	}
	if m.Version == running {
		m.State, m.Reason, m.Told = stateBlessed, "it runs without a counter", false
		return m, noted
	}
	next := named(all, m.Version)
	switch {
	case next == nil && m.State == stateWritten:
		// Cut off while it was written: it may be tried again.
		m.State, m.Reason, m.Told = stateNone, "", true
		return m, noted
	case next == nil:
		m.failed(stateBack, "its image is gone from the boot partition; "+reached(m))
	case next.Counted && next.Done == 0 && next.Left > 1:
		return m, again
	case next.Counted && next.Done == 0:
		m.failed(stateBack, fmt.Sprintf("its trial never began: the machine was started again %d times and came up with %s each time; "+
			"its firmware starts another disk or another boot entry: look at its boot order", tries, running))
	case !next.Counted:
		// Blessed, and newer, and yet not what was started.
		m.failed(stateBack, "it was blessed, but the machine was started from "+running)
	default:
		m.failed(stateBack, fmt.Sprintf("it was started %s and was not found healthy; %s", times(next.Done), reached(m)))
	}
	return m, noted
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// reached says how far the last trial got.
func reached(m memory) string {
	switch {
	case m.State != stateTrial:
		return "its agent never came up: kernel, init or agent"
	case m.Reason == "":
		return "its agent came up and ended before it knew whether the node was healthy"
	}
	return "the last that its agent noted: " + m.Reason
}

// unsafe lists images that nothing may fall back to: those below the floor, and
// those that failed, as long as something else is blessed and runs.
func unsafe(all []file, m memory, running, floor string) []file {
	if mine := named(all, running); mine == nil || mine.Counted {
		return nil
	}
	var out []file
	for _, s := range all {
		switch {
		case s.Version == running:
		case floor != "" && ledger.CompareVersions(s.Version, floor) < 0 && ledger.CompareVersions(running, floor) >= 0:
			out = append(out, s)
		case s.Version == m.Version && (m.State == stateBack || m.State == stateFailed):
			out = append(out, s)
		}
	}
	return out
}
