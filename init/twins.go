// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"time"

	"github.com/zos-node/zos/init/disks"
	"github.com/zos-node/zos/kernel/partition"
)

const (
	// disksKnown appears when no look-alike has shown up for as long as disks take
	// to. Where the firmware does not say what it started from, the agent leaves
	// the boot partition alone before.
	disksKnown = "/run/disks-known"
	// disksTime is how long a look-alike that shows up stops the node. Later it
	// was plugged into a node that works, and which disk is its own is known.
	disksTime  = 60 * time.Second
	disksEvery = 250 * time.Millisecond
	disksLater = 2 * time.Second
)

// twins refuses to guess which of two look-alike disks is the node's.
func (n *node) twins() error {
	return disksFault(disks.Check(partition.Sys, partition.Dev))
}

func disksFault(err error) error {
	return fault("DISKS", "the node's own disk", "one disk with this image",
		"Remove one of the disks named above, or write another image onto it: the stick that the node was installed from, most often.", err)
}

// watchDisks repeats the check of the start whenever a disk comes or goes.
func (n *node) watchDisks() {
	w := disks.Watch{Sys: partition.Sys, Dev: partition.Dev}
	for start := time.Now(); ; time.Sleep(disksEvery) {
		err := w.Look()
		over := time.Since(start) > disksTime
		if err != nil && (over || errors.Is(err, partition.ErrTwins)) {
			n.fail(disksFault(err))
		}
		if over {
			break
		}
	}
	if err := os.WriteFile(disksKnown, nil, 0o644); err != nil {
		n.fail(fault("RUN", "the folder of what runs", "a file in /run", "Report this.", err))
	}
	n.log.Info("no second disk with this image has shown up")
	for said := ""; ; time.Sleep(disksLater) {
		now := ""
		if err := w.Look(); err != nil {
			now = err.Error()
		}
		if now == said {
			continue
		}
		if said = now; now != "" {
			n.log.Error("a disk that looks like the node's own was plugged in", "err", now, "do", "take it out: the node takes no update while it is there, and does not start with it")
		} else {
			n.log.Info("the node's disk is alone again")
		}
		n.board.trouble("disks", now)
	}
}
