// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/initlink"
	"github.com/zos-node/zos/agent/pcrsig"
	"github.com/zos-node/zos/agent/recovery"
	"github.com/zos-node/zos/agent/seal"
	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/agent/state"
	"github.com/zos-node/zos/agent/update"
	"github.com/zos-node/zos/agent/wait"
	"github.com/zos-node/zos/kernel/kmod"
	"github.com/zos-node/zos/kernel/partition"
	"github.com/zos-node/zos/ledger"
)

const (
	// bootTrust is where init tells what vouches for this boot.
	bootTrust = "/run/boot-trust"
	firmware  = "/sys/firmware/efi"
	// mediumTime is how long a medium with the recovery key may take to show up,
	// once drivers are loaded, before an image on trial is given up.
	mediumTime = 15 * time.Second
)

// stateDrivers are what an encrypted disk needs, the fast cipher first: a device
// stays with the one that it was made with.
var stateDrivers = []kmod.Wanted{
	{Name: "aesni_intel", Optional: true}, {Name: "aes_ce_blk", Optional: true}, {Name: "xts", Optional: true}, {Name: "ecb", Optional: true}, {Name: "dm_mod"}, {Name: "dm_crypt"}, {Name: "crc32c_generic"}, {Name: "ext4"},
}

// keepState opens what the node keeps over a reboot, or makes it. It may take
// for ever, when the state is locked: init's words are listened to meanwhile.
func (n *node) keepState(ctx context.Context, words <-chan string, log *slog.Logger) error {
	to, err := recovery.Recipients(n.seed.Recovery)
	if err != nil {
		return err
	}
	c := state.Config{
		Sys: "/sys/class/block", Dev: "/dev", Extra: pcrsig.Dir, TPM: seal.Device, RunDir: runDir, Recipients: to,
		Modules: func() error { return kmod.LoadAll(stateDrivers) }, Booted: n.booted, Medium: seed.Finder(log), Log: log,
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.Locked = func(why error) { go n.lockedOnTrial(ctx, why, log) }
	type result struct {
		state *state.State
		err   error
	}
	opened := make(chan result, 1)
	go func() {
		s, err := state.Open(ctx, c)
		opened <- result{s, err}
	}()
	line := wait.Start(log, time.Now(), "the node's state", "its disk, drivers, and TPM")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			line.Tick(now)
		case r := <-opened:
			if r.err != nil {
				return r.err
			}
			n.state = r.state
			if r.state.Kind != state.Memory {
				n.start() // the time that was kept counts as well
			}
			return nil
		case w := <-words:
			if w != initlink.Shutdown {
				n.log.Warn("unknown word from init", "word", w)
				continue
			}
			// There is nothing to end yet; init ends this process.
			if err := n.link.Send(initlink.PowerOff); err != nil {
				return err
			}
		}
	}
}

// lockedOnTrial gives up an image on trial under which the state does not open,
// unless a medium with the recovery key is plugged in. Without this a person would
// have to come, or init's own limit to pass, at each of the image's tries.
func (n *node) lockedOnTrial(ctx context.Context, why error, log *slog.Logger) {
	// A medium shows up with its drivers.
	if err := n.drivers(ctx); err != nil {
		return // it has opened, or the node goes down
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(mediumTime):
	}
	release, err := os.ReadFile(seed.ReleasePath)
	if err != nil {
		log.Error("image's own name", "err", err)
		return
	}
	update.New(update.Config{Open: openBoot, About: update.Release(release), Clock: clock.System{}, Log: log,
		// Nothing runs yet that would have to end.
		Restart: func(context.Context, string) error { return n.link.Send(initlink.Reboot) },
	}).Locked(ctx, why)
}

// booted says whether this boot came from a partition, which then has to be
// there. A machine without UEFI was started with our kernel directly; one that
// was started from the network or an optical medium has no partition.
func (n *node) booted(context.Context) (bool, error) {
	if _, err := os.Stat(firmware); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	guid, err := partition.Booted(partition.EFIVars)
	return guid != "", err
}

// vouched is what this boot can show, from init and from the node's state.
func vouched(file string, s *state.State) (ledger.Boot, error) {
	b := ledger.Boot{SecureBoot: "none", Key: string(s.Kind), Lacks: []string{}}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		b.Lacks = append(b.Lacks, "nothing is known of this boot")
	} else if err != nil {
		return b, fmt.Errorf("boot trust: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		switch word, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); word {
		case "secureBoot":
			b.SecureBoot = value
		case "pcr11":
			b.PCR11 = value
		case "lacks":
			b.Lacks = append(b.Lacks, value)
		}
	}
	b.Lacks = append(b.Lacks, s.Lacks...)
	return b, nil
}
