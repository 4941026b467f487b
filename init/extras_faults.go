// SPDX-License-Identifier: Apache-2.0

//go:build faults

package main

import (
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/zos-node/zos/init/watchdog"
)

// extras of a test image: the program that puts faults in on request.
var extras = []string{"/bin/fault"}

// faults makes init panic on SIGUSR1, in a loop that is guarded as all are.
func (n *node) faults() {
	ask := make(chan os.Signal, 1)
	signal.Notify(ask, syscall.SIGUSR1)
	n.guard("faults", func() {
		<-ask
		panic("a panic on purpose")
	})
}

// patience of a test is shorter where a file says so.
func patience() time.Duration {
	b, err := os.ReadFile("/etc/zos/patience")
	if err != nil {
		return watchdog.Patience
	}
	d, err := time.ParseDuration(strings.TrimSpace(string(b)))
	if err != nil {
		return watchdog.Patience
	}
	return d
}
