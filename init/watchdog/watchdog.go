// SPDX-License-Identifier: Apache-2.0

// Package watchdog feeds the machine's hardware watchdog while the agent is
// well. A dog that is fed whatever happens only notices a dead kernel.
package watchdog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Timeout is how long the hardware waits; Every how often it is fed; Patience
// how long the agent may be silent, however often it was started meanwhile.
// Patience is long: starting the agent again comes first, and a restart of the
// machine ends guests that run well.
const (
	Timeout  = 60 * time.Second
	Every    = 10 * time.Second
	Patience = 5 * time.Minute
)

// Hungry decides: feed, unless the agent has been silent for too long.
func Hungry(silent, patience time.Duration) bool { return silent < patience }

// Dog is an open watchdog. It is never closed: whatever ends PID 1, the
// machine starts again.
type Dog struct{ f *os.File }

// ErrNone says that the machine has no watchdog.
var ErrNone = errors.New("this machine has no watchdog")

// Open arms the watchdog.
func Open(path string) (*Dog, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("watchdog: %w", err)
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, int(Timeout/time.Second)); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return &Dog{f}, fmt.Errorf("watchdog timeout of %s: %w", Timeout, err)
	}
	return &Dog{f}, nil
}

// Bit says whether the last start of the machine was this watchdog's doing, as
// far as the hardware remembers.
func (d *Dog) Bit() (bool, error) {
	status, err := unix.IoctlGetInt(int(d.f.Fd()), unix.WDIOC_GETBOOTSTATUS)
	if err != nil {
		return false, fmt.Errorf("watchdog: why the machine started: %w", err)
	}
	return status&unix.WDIOF_CARDRESET != 0, nil
}

// Feed gives the machine another Timeout.
func (d *Dog) Feed() error {
	if _, err := d.f.Write([]byte{0}); err != nil {
		return fmt.Errorf("feed watchdog: %w", err)
	}
	return nil
}
