// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/init/devices"
	"github.com/zos-node/zos/init/mount"
	"github.com/zos-node/zos/kernel/kmod"
)

func openIndex() (*kmod.Index, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	return kmod.Open("/lib/modules/" + unix.ByteSliceToString(u.Release[:]))
}

func modaliases() ([]string, error) { return kmod.Modaliases("/sys") }

// drivers loads a stage and says what came of it.
func (n *node) drivers(load func() (devices.Result, error)) error {
	start := time.Now()
	r, err := load()
	if err == nil {
		r.Report(n.log, time.Since(start))
	}
	return err
}

// mountDrivers mounts what needs a module, on machines that have a place for it.
func (n *node) mountDrivers(index *kmod.Index) {
	for _, d := range mount.Drivers(func(path string) bool { _, err := os.Stat(path); return err == nil }) {
		err := index.Load(d.Module)
		if err == nil {
			err = mount.Mount(d.Point)
		}
		if err != nil {
			n.log.Warn("a mount that needs a driver", "module", d.Module, "err", err)
		}
	}
}
