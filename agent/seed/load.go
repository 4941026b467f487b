// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/zos-node/zos/agent/wait"
)

const (
	// diskWait is how long Load waits for a boot medium that shows up late,
	// such as a USB stick, when no other source has a seed.
	diskWait  = 15 * time.Second
	diskEvery = 200 * time.Millisecond
)

// Load finds the node's seed: the initramfs, then the partition that the node
// was started from, then any other FAT file system (a stick, say; two that
// disagree are an error), then SMBIOS. The first source that has one is used
// whole; when that one is bad, Load fails rather than trying the next. DHCP is
// no source.
func Load(ctx context.Context, log *slog.Logger) (*Seed, error) {
	return load(ctx, log, InitramfsPath, newMedium(log), DMIPath)
}

func load(ctx context.Context, log *slog.Logger, initramfs string, m medium, dmi string) (*Seed, error) {
	b, err := readLimited(initramfs)
	if err == nil {
		return decodeFrom(log, b, initramfs)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	inSMBIOS, smbiosErr := smbios(dmi)
	var from string
	look := func(late bool) (done bool, err error) {
		found, where, seen, err := m.find(late)
		if err == nil {
			b, from = found, where
			return true, nil
		}
		if errors.Is(err, errLate) {
			return false, nil
		}
		if !errors.Is(err, ErrNone) {
			return false, err
		}
		// Waiting is for a disk that comes late; with media seen or a seed in
		// SMBIOS there is nothing to wait for.
		return seen || smbiosErr == nil, nil
	}
	short, cancel := context.WithTimeout(ctx, diskWait)
	defer cancel()
	err = wait.Until(short, log, "a boot medium with a seed", "FAT file system with "+MediumPath, diskEvery, func() (bool, error) { return look(false) })
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		_, err = look(true)
	}
	switch {
	case err == nil && b != nil:
		return decodeFrom(log, b, from)
	case err != nil:
		return nil, err
	case smbiosErr == nil:
		return decodeFrom(log, inSMBIOS, "SMBIOS OEM string "+SMBIOSPrefix)
	case !errors.Is(smbiosErr, ErrNone):
		return nil, smbiosErr
	}
	return nil, fmt.Errorf("looked at %s, boot media (%s) and SMBIOS (%s): %w", initramfs, MediumPath, SMBIOSPrefix, ErrNone)
}

func decodeFrom(log *slog.Logger, b []byte, from string) (*Seed, error) {
	s, err := Decode(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	log.Info("seed", "from", from, "name", s.Name, "ledgers", len(s.Ledger), "mirrors", len(s.Mirrors), "networks", len(s.Networks))
	return s, nil
}

// Root reads the trust root's envelope from the initramfs.
func Root(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("trust root: %w", err)
	}
	return b, nil
}
