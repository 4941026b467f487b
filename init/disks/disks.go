// SPDX-License-Identifier: Apache-2.0

// Package disks finds out whether two disks claim to be the node's own. A boot
// partition's GUID is a digest of the image that it was written with, so two
// partitions with one GUID are two copies of one image: the stick that the
// node was installed from, a cloned disk, a mirror that came apart. Which of
// them this node was started from, and whose seed is the right one, cannot be
// told by looking; a node that guesses may take another node's identity.
package disks

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/zos-node/zos/kernel/partition"
)

// Check returns partition.ErrTwins with a list when there are look-alikes.
func Check(sys, dev string) error {
	all, err := partition.Named(sys, dev, partition.BootLabel)
	if err != nil {
		return err
	}
	byGUID := map[string][]string{}
	for _, p := range all {
		byGUID[p.GUID] = append(byGUID[p.GUID], describe(sys, p.Device))
	}
	var twins []string
	for guid, names := range byGUID {
		if len(names) > 1 {
			twins = append(twins, guid+" on "+strings.Join(names, " and "))
		}
	}
	if len(twins) == 0 {
		return nil
	}
	slices.Sort(twins)
	return fmt.Errorf("%w: %s", partition.ErrTwins, strings.Join(twins, "; "))
}

// describe adds what is printed on a disk to a partition's name.
func describe(sys, name string) string {
	real, err := filepath.EvalSymlinks(filepath.Join(sys, name))
	if err != nil {
		return name
	}
	disk := filepath.Dir(real)
	for _, at := range []string{"device/serial", "serial", "wwid", "device/wwid", "device/model"} {
		if b, err := os.ReadFile(filepath.Join(disk, at)); err == nil && len(bytes.TrimSpace(b)) > 0 {
			return name + " (" + string(bytes.TrimSpace(b)) + ")"
		}
	}
	return name
}
