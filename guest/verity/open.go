// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open makes the device over a disk and returns its path below dev, with the
// state that the kernel reports of it, checked.
func Open(dev, name, disk string, p Params) (path string, s State, err error) {
	info, err := os.Stat(disk)
	if err != nil {
		return "", State{}, fmt.Errorf("root disk: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", State{}, fmt.Errorf("root disk %s: no device number", disk)
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	control, err := unix.Open(dev+"/mapper/control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", State{}, fmt.Errorf("device-mapper: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(control)) }()

	created, err := p.load(control, name, disk)
	if err != nil {
		return "", State{}, err
	}
	if s, err = status(control, name); err != nil {
		return "", State{}, err
	}
	if err := p.check(s, number); err != nil {
		return "", State{}, err
	}
	path = fmt.Sprintf("%s/dm-%d", dev, unix.Minor(created))
	return path, s, nil
}

// Status asks again, at any later time.
func Status(dev, name string) (s State, err error) {
	control, err := unix.Open(dev+"/mapper/control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return State{}, fmt.Errorf("device-mapper: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(control)) }()
	return status(control, name)
}

// load creates, fills and activates the device; it returns its number.
func (p Params) load(control int, name, disk string) (uint64, error) {
	b, err := encode(name, 0, nil, 0)
	if err != nil {
		return 0, err
	}
	if err := call(control, commandCreate, b); err != nil {
		return 0, fmt.Errorf("create device %s: %w", name, err)
	}
	number := binary.NativeEndian.Uint64(b[devOffset:])
	if b, err = encode(name, flagReadOnly|flagSecure, target(p.Sectors(), "verity", p.Table(disk)), 1); err != nil {
		return 0, err
	}
	if err := call(control, commandLoad, b); err != nil {
		return 0, fmt.Errorf("load table %q: %w", p.Table(disk), err)
	}
	if b, err = encode(name, flagReadOnly, nil, 0); err != nil {
		return 0, err
	}
	if err := call(control, commandSuspend, b); err != nil {
		return 0, fmt.Errorf("activate device %s: %w", name, err)
	}
	return number, nil
}

func status(control int, name string) (State, error) {
	var s State
	for _, q := range []struct {
		flags uint32
		to    *string
		table bool
	}{{flagStatusTable, &s.Table, true}, {0, &s.Status, false}} {
		b, err := encode(name, q.flags, nil, 0)
		if err != nil {
			return State{}, err
		}
		if err := call(control, commandStatus, b); err != nil {
			return State{}, fmt.Errorf("status of device %s: %w", name, err)
		}
		start, length, kind, text, err := decodeTarget(b)
		if err != nil {
			return State{}, fmt.Errorf("status of device %s: %w", name, err)
		}
		if *q.to = text; q.table {
			*q.to = fmt.Sprintf("%d %d %s %s", start, length, kind, text)
		}
	}
	return s, nil
}
