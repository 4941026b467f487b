// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/content"
	"github.com/zos-node/zos/agent/follow"
	"github.com/zos-node/zos/agent/initlink"
	"github.com/zos-node/zos/agent/record"
	"github.com/zos-node/zos/agent/update"
	"github.com/zos-node/zos/kernel/partition"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/zimage"
)

// updates makes the part that follows rollouts of the node's own image.
func (n *node) updates(signer sign.Signer, led *follow.Ledger, queue *record.Queue, store *content.Store, mirrors *follow.Mirrors, log *slog.Logger) error {
	dir := filepath.Join(runDir, "update")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	fetch := func(ctx context.Context, t *ledger.Target) (string, func(), error) {
		f := zimage.Fetcher{Mirrors: slices.Concat(n.seed.Mirrors, t.Mirrors), HTTP: n.web, Log: log, Report: mirrors.Report}
		path := filepath.Join(dir, "image")
		room := update.Room(t.Image.Size, func(bytes int64) error { return store.Room((bytes + 1<<20 - 1) >> 20) })
		if err := update.Fetch(ctx, &f, t, path, room); err != nil {
			return "", nil, err
		}
		return path, func() {
			if err := os.Remove(path); err != nil {
				log.Warn("image stays in memory", "err", err)
			}
		}, nil
	}
	n.updater = update.New(update.Config{
		Open: openBoot, About: n.about, Name: n.seed.Name, Node: signer.KeyID(),
		Secure: func() bool { return update.SecureBoot(partition.EFIVars) }, Maker: n.state.Maker,
		State: led.State, NowMs: func() int64 { return led.NowMs(clock.System{}.Now()) }, Fetch: fetch, Record: queue.Update, Drain: queue.Drain,
		Healthy: n.healthy, Blessed: func() error { return n.link.Send(initlink.Blessed) },
		Restart: func(_ context.Context, reason string) error {
			n.down(reason, n.follower.StopTime()+endTime)
			return n.link.Send(initlink.Reboot)
		},
		Clock: clock.System{}, Log: log,
	})
	return nil
}

// openBoot opens the boot partition that the node was started from.
func openBoot() (update.Disk, error) {
	device, err := update.Partition(partition.EFIVars, partition.Sys, partition.Dev)
	if err != nil {
		return nil, err
	}
	return update.OpenDisk(device)
}

// ownDisk waits until the boot partition that would be written to is the node's
// own for certain. A firmware that says what it started from is enough, for
// partition.Own holds its word against what it finds; with one that does not, a
// look-alike has to have had its time to show up.
func (n *node) ownDisk(ctx context.Context) error {
	if err := n.drivers(ctx); err != nil {
		return err
	}
	guid, err := partition.Booted(partition.EFIVars)
	if err == nil && (guid == "" || partition.Started(partition.EFIVars) != partition.Unknown) {
		return nil
	}
	return n.ready(ctx, disksKnown, "the node's disks", "init looks out for a second one with this image", time.Second)
}

// healthy says what a node that works would have and this one has not.
func (n *node) healthy() error {
	return lacks(n.guests().ready, n.follower.Following(), n.progress.Healthy())
}

// lacks decides that; stuck is a loop of the agent that has not moved.
func lacks(ready, following bool, stuck error) error {
	switch {
	case !ready:
		return errors.New("drivers and hypervisor are not ready")
	case !following:
		return errors.New("the ledger is not followed")
	}
	return stuck
}
