// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/initlink"
	"github.com/zos-node/zos/agent/seed"
)

const (
	// initFD is where init put its end of the line.
	initFD = 3
	// stateDir holds what a restarted agent needs; it is a tmpfs.
	stateDir = "/run/zos"
)

// run is the life of the agent: clock, line to init, and then whatever the
// ledger says until init wants the node down.
func run(ctx context.Context, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	link, err := initlink.Open(initFD, log.With("part", "init"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", stateDir, err)
	}
	floor, from := clock.Floor(log, clock.Release(seed.ReleasePath), clock.File("saved", stateDir+"/clock"), clock.File("rtc", clock.RTCPath))
	if err := clock.Forward(log, time.Now(), floor, from, clock.Set); err != nil {
		log.Error("clock", "err", err)
	}
	progress := initlink.NewProgress(time.Now)
	words := link.Words(ctx)
	go link.Beat(ctx, initlink.Every, progress.Healthy)
	for w := range words {
		if w == initlink.Shutdown {
			return link.Send(initlink.PowerOff)
		}
		log.Warn("unknown word from init", "word", w)
	}
	return nil
}
