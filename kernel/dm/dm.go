// SPDX-License-Identifier: Apache-2.0

// Package dm makes device-mapper devices: a block device that the kernel
// computes from another one. A guest's root is one whose every block is checked
// (dm-verity), a node's state one that is encrypted (dm-crypt).
//
// It is device-mapper's ioctls, written out by hand: five calls, one struct, no
// library and no udev. Tables may hold keys: no error of this package shows one,
// and the kernel wipes its copy of the call.
package dm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Target is what a device is made of. It begins at the device's first sector.
type Target struct {
	Kind     string // "verity", "crypt"
	Sectors  uint64 // of 512 bytes
	Table    string // the target's own parameters
	ReadOnly bool
}

// Control is the way to the kernel's device-mapper.
type Control struct {
	fd  int
	dev string
}

// Open opens it below the folder of device nodes.
func Open(dev string) (*Control, error) {
	fd, err := unix.Open(dev+"/mapper/control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("device-mapper: %w", err)
	}
	return &Control{fd, dev}, nil
}

// Close lets go of it; devices stay.
func (c *Control) Close() error { return unix.Close(c.fd) }

// Create makes a device and returns its path.
func (c *Control) Create(name string, t Target) (string, error) {
	b, err := encode(name, 0, nil, 0)
	if err != nil {
		return "", err
	}
	if err := call(c.fd, commandCreate, b); err != nil {
		return "", fmt.Errorf("create device %s: %w", name, err)
	}
	number := binary.NativeEndian.Uint64(b[devOffset:])
	var flags uint32
	if t.ReadOnly {
		flags = flagReadOnly
	}
	if err := c.fill(name, flags, t); err != nil {
		return "", errors.Join(err, c.Remove(name))
	}
	return fmt.Sprintf("%s/dm-%d", c.dev, unix.Minor(number)), nil
}

// fill loads the table and puts it in force.
func (c *Control) fill(name string, flags uint32, t Target) error {
	b, err := encode(name, flags|flagSecure, target(t.Sectors, t.Kind, t.Table), 1)
	if err != nil {
		return err
	}
	defer clear(b)
	if err := call(c.fd, commandLoad, b); err != nil {
		return fmt.Errorf("load the table of device %s (%s): %w", name, t.Kind, err)
	}
	if b, err = encode(name, flags, nil, 0); err != nil {
		return err
	}
	if err := call(c.fd, commandSuspend, b); err != nil {
		return fmt.Errorf("activate device %s: %w", name, err)
	}
	return nil
}

// Remove takes a device away; one that is not there is no error.
func (c *Control) Remove(name string) error {
	b, err := encode(name, 0, nil, 0)
	if err != nil {
		return err
	}
	if err := call(c.fd, commandRemove, b); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("remove device %s: %w", name, err)
	}
	return nil
}

// State is a device as the kernel tells it.
type State struct {
	Table  string // "<start> <length> <kind> <parameters>"
	Status string // the target's own words
}

// Status asks for it.
func (c *Control) Status(name string) (State, error) {
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
		if err := call(c.fd, commandStatus, b); err != nil {
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

// Number is a block device's, as tables name it.
func Number(disk string) (string, error) {
	info, err := os.Stat(disk)
	if err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("%s has no device number", disk)
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}
