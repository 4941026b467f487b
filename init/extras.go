// SPDX-License-Identifier: Apache-2.0

//go:build !faults

package main

import (
	"time"

	"github.com/zos-node/zos/init/watchdog"
)

// extras are other programs that init keeps running: a production image has
// none.
var extras []string

// faults is where a test image listens for faults to put into init itself.
func (n *node) faults() {}

// patience with a silent agent.
func patience() time.Duration { return watchdog.Patience }
