// SPDX-License-Identifier: Apache-2.0

// Package disks finds out whether two disks claim to be the node's own. A boot
// partition's GUID is a digest of the image that it was written with, so two
// partitions with one GUID are two copies of one image: the stick that the
// node was installed from, a cloned disk, a mirror that came apart. Which of
// them this node was started from, and whose seed is the right one, cannot be
// told by looking; a node that guesses may take another node's identity.
package disks

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Where the kernel lists block devices, and where their contents are.
const (
	Sys = "/sys/class/block"
	Dev = "/dev"
)

// PartitionName is what image.Disk calls its boot partition.
const PartitionName = "zos ESP"

// ErrTwins says that there are look-alikes.
var ErrTwins = errors.New("two disks carry the same node image")

// Check returns ErrTwins with a list when there are.
func Check(sys, dev string) error {
	entries, err := os.ReadDir(sys)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no disks at all
	}
	if err != nil {
		return fmt.Errorf("list disks: %w", err)
	}
	byGUID := map[string][]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(sys, e.Name(), "uevent"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went away
		}
		if err != nil {
			return fmt.Errorf("look at disk %s: %w", e.Name(), err)
		}
		v := values(b)
		if v["PARTNAME"] != PartitionName {
			continue
		}
		guid, err := partitionGUID(sys, dev, e.Name(), v["PARTN"])
		if err != nil {
			return fmt.Errorf("look at disk %s: %w", e.Name(), err)
		}
		byGUID[guid] = append(byGUID[guid], describe(sys, e.Name()))
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
	return fmt.Errorf("%w: %s", ErrTwins, strings.Join(twins, "; "))
}

// Offsets in a GPT header and in an entry (UEFI specification, 5.3).
const (
	entriesAt   = 72
	entrySizeAt = 84
	entryGUID   = 16
	maxEntry    = 4096
)

// partitionGUID reads it from the table, which the kernel has checked: sysfs
// does not tell.
func partitionGUID(sys, dev, name, number string) (string, error) {
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return "", fmt.Errorf("partition number %q", number)
	}
	real, err := filepath.EvalSymlinks(filepath.Join(sys, name))
	if err != nil {
		return "", err
	}
	disk := filepath.Dir(real)
	text, err := os.ReadFile(filepath.Join(disk, "queue/logical_block_size"))
	if err != nil {
		return "", err
	}
	sector, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return "", err
	}
	f, err := os.Open(filepath.Join(dev, filepath.Base(disk)))
	if err != nil {
		return "", err
	}
	defer f.Close()
	header := make([]byte, 92)
	if _, err := f.ReadAt(header, sector); err != nil {
		return "", fmt.Errorf("partition table: %w", err)
	}
	size := int64(binary.LittleEndian.Uint32(header[entrySizeAt:]))
	if string(header[:8]) != "EFI PART" || size > maxEntry {
		return "", errors.New("no partition table where the kernel found one")
	}
	guid := make([]byte, 16)
	if _, err := f.ReadAt(guid, int64(binary.LittleEndian.Uint64(header[entriesAt:]))*sector+int64(n-1)*size+entryGUID); err != nil {
		return "", fmt.Errorf("partition table: %w", err)
	}
	// As people write it: three numbers in little-endian, two in order.
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(guid), le.Uint16(guid[4:]), le.Uint16(guid[6:]), guid[8:10], guid[10:]), nil
}

func values(uevent []byte) map[string]string {
	v := map[string]string{}
	for scan := bufio.NewScanner(bytes.NewReader(uevent)); scan.Scan(); {
		if name, value, ok := strings.Cut(scan.Text(), "="); ok {
			v[name] = value
		}
	}
	return v
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
