// SPDX-License-Identifier: Apache-2.0

package update

import (
	"bytes"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/pcrsig/measure"
	"github.com/zos-node/zos/kernel/partition"
)

const (
	globalGUID = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	attributes = 4 // bytes before a variable's data
)

// ErrNoPartition says that the machine was not started from a boot partition of
// ours: from the network, or from a medium that is not there any more.
var ErrNoPartition = errors.New("the node was not started from a boot partition of its own")

// Partition finds the device that the loader says it was started from. The
// partition's GUID is a digest of the image that the disk was written with;
// init has seen to it that there are no two.
func Partition(efivars, sys, dev string) (string, error) {
	device, guid, err := partition.Own(efivars, sys, dev)
	switch {
	case err != nil:
		return "", err
	case guid == "":
		return "", fmt.Errorf("%w: the loader names no partition", ErrNoPartition)
	case device == "":
		return "", fmt.Errorf("%w: the loader names partition %s, which no disk here has", ErrNoPartition, guid)
	}
	return device, nil
}

// SecureBoot says whether the firmware starts signed programs only.
func SecureBoot(efivars string) bool {
	b, err := os.ReadFile(filepath.Join(efivars, "SecureBoot"+globalGUID))
	return err == nil && len(b) == attributes+1 && b[attributes] == 1
}

// inspect refuses a UKI that this node could not run, whatever was signed: of
// another board or version, or without a signature where the firmware wants one;
// and one under which the node's state, sealed to a maker, would stay locked.
func inspect(r io.ReaderAt, version, board string, secure bool, maker string) error {
	f, err := pe.NewFile(r)
	if err != nil {
		return fmt.Errorf("the image is no UKI: %w", err)
	}
	head, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	osrel := f.Section(".osrel")
	if !ok || osrel == nil || f.Section(".linux") == nil || f.Section(".initrd") == nil {
		return errors.New("the image is no UKI: sections are missing")
	}
	text, err := osrel.Data()
	if err != nil {
		return fmt.Errorf("the image is no UKI: %w", err)
	}
	about := Release(bytes.TrimRight(text, "\x00"))
	if about.Version != version || about.Board != board {
		return fmt.Errorf("the image says that it is version %s for board %s, released is %s for %s", about.Version, about.Board, version, board)
	}
	const certificates = 4
	if secure && (head.NumberOfRvaAndSizes <= certificates || head.DataDirectory[certificates].Size == 0) {
		return errors.New("the image is not signed, and this firmware starts signed ones only")
	}
	if maker == "" {
		return nil
	}
	if err := measure.Opens(r, maker); err != nil {
		return fmt.Errorf("the state of this node would stay locked under the image: %w", err)
	}
	return nil
}

// About is what an os-release text says of an image.
type About struct{ Version, Board string }

// Release reads an os-release text.
func Release(text []byte) About {
	var a About
	for line := range strings.Lines(string(text)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		v = strings.Trim(v, `"`)
		switch k {
		case "IMAGE_VERSION":
			a.Version = v
		case "IMAGE_ID":
			a.Board = v
		}
	}
	return a
}

// disk is a partition that nobody else has open.
type disk struct{ *os.File }

// OpenDisk opens a partition; it fails when the partition is mounted.
func OpenDisk(device string) (Disk, error) {
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return nil, fmt.Errorf("boot partition: %w", err)
	}
	return disk{f}, nil
}

// Sync writes out and forgets what memory has, so that what is read later comes
// from the disk.
func (d disk) Sync() error {
	if err := d.File.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(d.Fd()), 0, 0, unix.FADV_DONTNEED)
}
