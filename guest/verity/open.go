// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"errors"
	"fmt"

	"github.com/zos-node/zos/kernel/dm"
)

// Open makes the device over a disk and returns its path below dev, with the
// state that the kernel reports of it, checked.
func Open(dev, name, disk string, p Params) (path string, s State, err error) {
	number, err := dm.Number(disk)
	if err != nil {
		return "", State{}, fmt.Errorf("root disk: %w", err)
	}
	control, err := dm.Open(dev)
	if err != nil {
		return "", State{}, err
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	if path, err = control.Create(name, dm.Target{Kind: "verity", Sectors: p.Sectors(), Table: p.Table(disk), ReadOnly: true}); err != nil {
		return "", State{}, fmt.Errorf("table %q: %w", p.Table(disk), err)
	}
	got, err := control.Status(name)
	if err != nil {
		return "", State{}, err
	}
	s = State(got)
	if err := p.check(s, number); err != nil {
		return "", State{}, err
	}
	return path, s, nil
}

// Status asks again, at any later time.
func Status(dev, name string) (s State, err error) {
	control, err := dm.Open(dev)
	if err != nil {
		return State{}, err
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	got, err := control.Status(name)
	return State(got), err
}
