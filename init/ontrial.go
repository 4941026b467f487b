// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/zos-node/zos/init/power"
	"github.com/zos-node/zos/init/trial"
	"github.com/zos-node/zos/init/trust"
)

// onTrial starts the machine again when an image that the loader counts does
// not come to a verdict.
func (n *node) onTrial() {
	if !trial.Begun(trust.EFIVars) {
		return
	}
	n.log.Info("this image is on trial: without the agent's word the machine starts again", "limit", trial.Limit)
	start := time.Now()
	n.guard("trial", func() {
		for {
			select {
			case <-n.blessed:
				n.log.Info("the trial is over: this image stays")
				return
			case <-time.After(time.Second):
			}
			if why := trial.Over(n.agent.Starts(), time.Since(start)); why != "" {
				n.log.Error("the trial of this image is lost", "why", why)
				n.ending <- power.Reboot
				return
			}
		}
	})
}
