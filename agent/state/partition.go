// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// PartitionName is what image.Disk calls it.
const PartitionName = "zos state"

// sectorSize is the unit in which the kernel tells sizes.
const sectorSize = 512

// partition is the place for the state on a disk of ours.
type partition struct {
	device string // path
	size   int64  // bytes
}

// errTwo says that there is more than one.
var errTwo = errors.New("two disks have a partition for the node's state")

// find looks for the one partition; nil when there is none. Which of two is this
// node's cannot be told by looking.
func find(sys, dev string) (*partition, error) {
	entries, err := os.ReadDir(sys)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var found []partition
	for _, e := range entries {
		uevent, err := os.ReadFile(filepath.Join(sys, e.Name(), "uevent"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went away
		}
		if err != nil {
			return nil, fmt.Errorf("look at disk %s: %w", e.Name(), err)
		}
		if !slices.Contains(strings.Split(string(uevent), "\n"), "PARTNAME="+PartitionName) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(sys, e.Name(), "size"))
		if err != nil {
			return nil, fmt.Errorf("look at disk %s: %w", e.Name(), err)
		}
		sectors, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("size of %s: %w", e.Name(), err)
		}
		found = append(found, partition{filepath.Join(dev, e.Name()), sectors * sectorSize})
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return &found[0], nil
	}
	return nil, fmt.Errorf("%w, %s and %s: remove one of the disks", errTwo, found[0].device, found[1].device)
}
