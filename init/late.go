// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime"
	"time"

	"github.com/zos-node/zos/init/devices"
	"github.com/zos-node/zos/init/supervise"
	"github.com/zos-node/zos/kernel/kmod"
)

// myTurn waits, on a machine with one processor, until the agent has reached
// the ledger or had time to: a driver that loads keeps a processor for itself,
// whatever its priority. Guests come after the ledger in any case.
func (n *node) myTurn() {
	if runtime.NumCPU() > 1 {
		return
	}
	select {
	case <-n.reached:
	case <-time.After(lateAfter):
	}
}

// late is what does not have to be there before the agent starts.
func (n *node) late(index *kmod.Index) {
	if err := n.drivers(func() (devices.Result, error) {
		return devices.LoadLate(index, index.Late(), modaliases, n.buttons, n.log)
	}); err != nil {
		n.fail(fault("DRIVERS", "the drivers that guests need", "lib/modules of the running kernel in the image", "Report this: the image and the kernel do not fit.", err))
	}
	switch unclaimed, err := devices.Unclaimed(devices.PCI); {
	case err != nil:
		n.log.Warn("look for devices without a driver", "err", err)
	case len(unclaimed) > 0:
		n.log.Warn("PCI devices that no driver of this image takes", "devices", unclaimed)
	}
	n.crashOutput()
	n.vouch()
	n.onTrial()
	n.collect()
	// Before guests: the watch may not have come to what the late drivers brought.
	if err := n.twins(); err != nil {
		n.fail(err)
	}
	n.more()
	// The agent waits for this file before it offers to run guests.
	if err := os.WriteFile(driversReady, nil, 0o644); err != nil {
		n.log.Error("tell that the drivers are loaded", "err", err)
	}
	if n.buttons(); len(n.hears) == 0 {
		n.log.Warn("this machine has no power button")
	}
	n.guard("watchdog", n.watch)
}

// more starts the programs that only a test image has, when what is measured of
// a boot is over.
func (n *node) more() {
	for _, extra := range extras {
		if _, err := os.Stat(extra); err == nil {
			c := &supervise.Child{Path: extra, Env: []string{"PATH=/bin"}, Reaper: n.reaper, Console: n.out, Log: n.log}
			n.guard(extra, func() { c.Run(n.running) })
		}
	}
}
