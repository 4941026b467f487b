// SPDX-License-Identifier: Apache-2.0

// Package deploy is one deployment's life on a node, from the moment it shows
// up on the ledger to the close entry.
//
// A Life goes through the phases of package phase, is supervised while it
// runs, and ends for exactly one reason (Ending). Whatever it did is in its
// State, a file that is written before each step: an agent that finds one
// either adopts a running deployment or undoes a half one, so that none ever
// stays up by half.
//
// What happens where: life.go the order of things · check.go the phases that
// only look · machines.go boot and guests · verify.go and compare.go plan
// against reality · watch.go lease and ledger · supervise.go failures · end.go
// the end · adopt.go after a restart.
package deploy

import (
	"context"
	"log/slog"
	"time"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/content"
	"github.com/zos-node/zos/agent/imaged"
	"github.com/zos-node/zos/agent/network"
	"github.com/zos-node/zos/agent/record"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
)

// Ledger is what a deployment needs of it.
type Ledger interface {
	State() *ledger.State
	Acted() ledger.Acted
	Submit(ctx context.Context, entry []byte) (ledger.Receipt, error)
	// Changed is closed when there is a newer State than at the call.
	Changed() <-chan struct{}
}

// World is what all deployments of a node share.
type World struct {
	Node       string // its id
	Signer     sign.Signer
	Ledger     Ledger
	Records    *record.Queue
	Content    *content.Store
	Images     *imaged.Images // the disks in Content, or on their way there
	Driver     vm.Driver
	Hypervisor ledger.Hypervisor
	Network    *network.Manager
	Clock      clock.Clock
	Log        *slog.Logger
	RunDir     string // state, VM directories, volumes
	Cgroups    string // parent of the VMs' cgroups
	// Resources is what the node has now for guests, beyond the ledger's
	// bookkeeping: memory that is free in fact.
	Resources func() (freeMemoryMiB int64, err error)
	// Silence is how long a guest may say nothing; 0 is guestlink's own limit.
	Silence time.Duration
}

const (
	// What auditors know of as well: who is silent for longer did not try.
	bootTimeout = ledger.BootLimit
	checkSlack  = ledger.HealthSlack
	// fetchTimeout bounds fetching; mirrors are asked again until then.
	fetchTimeout = ledger.FetchLimit
	undoTimeout  = 2 * time.Minute
	killTimeout  = 20 * time.Second
	infoTimeout  = 20 * time.Second
	// serverMoment is how long after a guest failed its disk's server may take
	// to be seen dead: the disk breaks before the process is gone.
	serverMoment = 5 * time.Second
	// stopSlack is what a guest gets beyond its grace to power off.
	stopSlack = 10 * time.Second
	// grantTimeout is how long a granted claim may take to show up in the
	// verified state.
	grantTimeout  = 30 * time.Second
	submitTimeout = 15 * time.Second
	renewPart     = 3  // a lease is renewed after a third of it
	marginPart    = 10 // what is stopped for its lease is stopped a tenth early
	maxMargin     = 10 * time.Second
	renewRetry    = 2 * time.Second
	tick          = time.Second // of waits that print a line
)

// Kinds of incidents that deployments report.
const (
	IncidentPanic       = "guest-panic"
	IncidentDied        = "vm-died"
	IncidentMeasurement = "measurement-mismatch"
	IncidentMute        = "hypervisor-silent" // it did not say in time what it runs
	IncidentProtocol    = "guest-protocol"
	IncidentReboot      = "guest-reboot"
	IncidentSilent      = "guest-silent"
	IncidentRestart     = "machine-restart"
	IncidentLease       = "lease-lost"
	IncidentLost        = "story-lost"        // what the node knew of a claim is gone, with what was not recorded yet
	IncidentContent     = "content-mismatch"  // a file of the store was changed behind its check
	IncidentServer      = "image-server-died" // its disk was still arriving, and the process that showed it is gone
	IncidentUnavailable = "image-unavailable" // a part of its disk did not come in time
)
