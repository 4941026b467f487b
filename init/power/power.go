// SPDX-License-Identifier: Apache-2.0

// Package power hears the power button and turns the machine off or starts it
// again, in order: workloads first, then everything else, then the disks.
package power

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How a machine can end.
type How string

const (
	Off    How = "poweroff"
	Reboot How = "reboot"
)

const (
	evKey     = 1
	keyPower  = 116
	eventSize = 24 // struct input_event on 64-bit: two longs, type, code, value
)

// Buttons lists the input devices below sysfs that have a power key.
func Buttons(sysInput string) ([]string, error) {
	all, err := filepath.Glob(filepath.Join(sysInput, "event*"))
	if err != nil {
		return nil, fmt.Errorf("list input devices: %w", err)
	}
	var found []string
	for _, dir := range all {
		b, err := os.ReadFile(filepath.Join(dir, "device/capabilities/key"))
		if err != nil {
			continue // a device without keys
		}
		if hasKey(string(b), keyPower) {
			found = append(found, filepath.Base(dir))
		}
	}
	return found, nil
}

// hasKey reads sysfs' bitmap: hexadecimal words, the highest first.
func hasKey(bitmap string, key int) bool {
	words := strings.Fields(bitmap)
	i := len(words) - 1 - key/64
	if i < 0 {
		return false
	}
	w, err := strconv.ParseUint(words[i], 16, 64)
	return err == nil && w>>(key%64)&1 == 1
}

// Pressed reads input events until the power key goes down.
func Pressed(r io.Reader) error {
	event := make([]byte, eventSize)
	for {
		if _, err := io.ReadFull(r, event); err != nil {
			return fmt.Errorf("read power button: %w", err)
		}
		typ, code, value := binary.NativeEndian.Uint16(event[16:]), binary.NativeEndian.Uint16(event[18:]), binary.NativeEndian.Uint32(event[20:])
		if typ == evKey && code == keyPower && value == 1 {
			return nil
		}
	}
}

// Step is one step of the end, with a name for the console.
type Step struct {
	Name string
	Do   func() error
}

// killAll ends every process but this one.
func killAll(sig unix.Signal) error {
	if err := unix.Kill(-1, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %s to all: %w", sig, err)
	}
	return nil
}

// Steps are what happens after the agent has ended its guests, in order.
func Steps(guests string, unmount func() error, sleep func(time.Duration)) []Step {
	return []Step{
		{"end what is left of guests", func() error { return killGroup(guests) }},
		{"ask all processes to end", func() error { return killAll(unix.SIGTERM) }},
		{"give them a second", func() error { sleep(time.Second); return nil }},
		{"end all processes", func() error { return killAll(unix.SIGKILL) }},
		{"write what is in memory", func() error { unix.Sync(); return nil }},
		{"unmount disks", unmount},
	}
}

// killGroup ends a cgroup with all that it holds.
func killGroup(dir string) error {
	f := filepath.Join(dir, "cgroup.kill")
	if _, err := os.Stat(f); errors.Is(err, os.ErrNotExist) {
		return nil // there never was a guest
	}
	if err := os.WriteFile(f, []byte("1"), 0); err != nil {
		return fmt.Errorf("end cgroup %s: %w", dir, err)
	}
	return nil
}

// Do is the last deed of the machine; it returns only when it failed.
func Do(how How) error {
	cmd := unix.LINUX_REBOOT_CMD_POWER_OFF
	if how == Reboot {
		cmd = unix.LINUX_REBOOT_CMD_RESTART
	}
	if err := unix.Reboot(cmd); err != nil {
		return fmt.Errorf("%s: %w", how, err)
	}
	return nil
}
