// SPDX-License-Identifier: Apache-2.0

package hypervisor

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/zos-node/zos/agent/wait"
)

// IncidentUnusable says that a node's hypervisor does not even tell its version.
const IncidentUnusable = "hypervisor-unusable"

// Ask gets the version that the program says of itself, every so often until it
// does: it may lack memory for a moment, or be no program for this machine, which
// only an update of the node mends. Until then the node has nothing to offer, but
// follows the ledger; report hears of it once. An error is report's, or ctx is over.
func Ask(ctx context.Context, log *slog.Logger, every time.Duration, version func(context.Context) (string, error), report func(kind, detail string) error) (string, error) {
	var said string
	reported := false
	err := wait.Until(ctx, log, "the hypervisor", "it does not tell its version; an image that has another one mends that", every, func() (bool, error) {
		v, err := version(ctx)
		if err == nil {
			said = v
			return true, nil
		}
		if reported || ctx.Err() != nil {
			return false, nil
		}
		reported = true
		log.Error("the hypervisor cannot be used: this node offers nothing", "err", err)
		if err := report(IncidentUnusable, err.Error()); err != nil {
			return false, fmt.Errorf("report the hypervisor: %w", err)
		}
		return false, nil
	})
	return said, err
}
