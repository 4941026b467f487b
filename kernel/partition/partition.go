// SPDX-License-Identifier: Apache-2.0

// Package partition finds GPT partitions by their GUIDs: of a disk, sysfs tells
// names and numbers, and the GUIDs stand in the table on the disk itself. It
// only reads. init tells look-alike disks apart with it, and the agent finds
// the partition that the loader says it was started from.
package partition

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Where the kernel lists block devices, and where their contents are.
const (
	Sys = "/sys/class/block"
	Dev = "/dev"
)

// Partition is one that was found.
type Partition struct {
	Device string // name of the device, such as "vda1"
	Label  string // its name in the table
	GUID   string // unique GUID, lower case
}

// Named lists the partitions with a name in their tables. A disk that goes
// away meanwhile is passed over.
func Named(sys, dev, label string) ([]Partition, error) {
	entries, err := os.ReadDir(sys)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no disks at all
	}
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var all []Partition
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(sys, e.Name(), "uevent"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at disk %s: %w", e.Name(), err)
		}
		v := values(b)
		if v["PARTNAME"] != label {
			continue
		}
		guid, err := guidOf(sys, dev, e.Name(), v["PARTN"])
		if err != nil {
			return nil, fmt.Errorf("look at disk %s: %w", e.Name(), err)
		}
		all = append(all, Partition{e.Name(), label, guid})
	}
	return all, nil
}

// Offsets in a GPT header and in an entry (UEFI specification, 5.3).
const (
	entriesAt   = 72
	entrySizeAt = 84
	entryGUID   = 16
	maxEntry    = 4096
)

// guidOf reads it from the table, which the kernel has checked: sysfs
// does not tell.
func guidOf(sys, dev, name, number string) (string, error) {
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
