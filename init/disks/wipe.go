// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/zos-node/zos/kernel/partition"
)

// StateName is what image.Disk calls the partition for the node's state.
const StateName = "zos state"

// ErrSeveral says that it is not known which partition is meant.
var ErrSeveral = errors.New("more than one")

// Wipe fills the one partition of a name with zeros, which is how a new image
// has it, and tells its device; "" when there is none. Of two, neither is
// touched.
func Wipe(sys, dev, name string) (device string, err error) {
	all, err := partition.Named(sys, dev, name)
	if err != nil {
		return "", fmt.Errorf("wipe partition %q: %w", name, err)
	}
	switch len(all) {
	case 0:
		return "", nil
	case 1:
	default:
		var names []string
		for _, p := range all {
			names = append(names, p.Device)
		}
		return "", fmt.Errorf("wipe partition %q: %w: %s", name, ErrSeveral, strings.Join(names, ", "))
	}
	device = filepath.Join(dev, all[0].Device)
	if err := zero(device); err != nil {
		return "", fmt.Errorf("wipe partition %q: %w", name, err)
	}
	return device, nil
}

// zero overwrites a device to its end.
func zero(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	zeros := make([]byte, 1<<20)
	for at := int64(0); err == nil && at < size; at += int64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
