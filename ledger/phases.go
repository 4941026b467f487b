// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"time"

	"github.com/zos-node/zos/spec"
)

// PhaseRunning is the phase whose record says that a deployment serves.
const PhaseRunning = "running"

// How long a node may take for a phase before it has to record how it went. No
// rule of Apply holds a node to this: what a node does, and when, it alone can
// say. Nodes give up by it, and whoever reads the log knows by it when silence is
// no patience any more.
const (
	// FetchLimit is that of each of the two phases that fetch.
	FetchLimit = 10 * time.Minute
	// BootLimit is from the start of a machine to its guest's report. It is
	// generous: nodes under emulation are slow, the more so where their guests'
	// processor is emulated twice over, and failure shows otherwise.
	BootLimit = 10 * time.Minute
	// HealthSlack is added to a machine's own deadline for its first health.
	HealthSlack = 30 * time.Second
	// StepLimit is that of a phase that waits for nobody but the node itself and
	// the ledger.
	StepLimit = 5 * time.Minute
)

// Phases are those that every deployment goes through before it serves, in
// their order.
func Phases() []string {
	return []string{"detect", "match", "claim", "retrieve", "verify-signatures", "verify-resources", "verify-network",
		"fetch-metadata", "fetch-content", "plan", "network", "volumes", "start", "post-verify", PhaseRunning}
}

// PhaseLimit is how long a phase of a deployment may take, from the record of
// the one before. Machines that wait for each other become healthy one after the
// other.
func PhaseLimit(phase string, d *spec.Deployment) time.Duration {
	switch phase {
	case "fetch-metadata", "fetch-content":
		return FetchLimit
	case "start", "post-verify":
		limit := BootLimit
		for _, m := range d.Machines {
			limit += time.Duration(m.Health.DeadlineMs)*time.Millisecond + HealthSlack
		}
		return limit
	}
	return StepLimit
}
