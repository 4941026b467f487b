// SPDX-License-Identifier: Apache-2.0

package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/zos-node/zos/image/fat32"
	"github.com/zos-node/zos/kernel/partition"
)

const (
	espStart  = mib // the usual alignment
	tableRoom = mib // at the end, for the backup table

	// StateMiB is the partition for what a node keeps over a reboot: its key,
	// what it believes of the ledger, what the ledger does not have yet, the
	// time. It is zeros, and the node fills it at its first boot (agent/state).
	StateMiB = 64
	// stateName is how the node knows it.
	stateName = "zos state"
	// stateType is the type of LUKS partitions (UAPI's list of partition types).
	stateType = gpt.Type("CA7D7CCB-63ED-4C53-861C-1742536059CC")
)

// Disk is a bootable disk image: GPT with an EFI system partition and an empty
// one for the node's state.
type Disk struct {
	Boot
	ESPMiB int64
	Sector int // bytes: 512, or 4096 for disks that have no smaller ones; 512 when 0
}

// Write makes the image, sparse. The file is new or is replaced.
func (d Disk) Write(name string) error {
	if d.Sector == 0 {
		d.Sector = 512
	}
	// A file system for large sectors is large; nothing of it is written.
	esp := max(d.ESPMiB*mib, fat32.MinSize(d.Sector))
	// Half of the partition stays free, so that the next UKI fits beside this one.
	if int64(len(d.UKI)) > esp/2 {
		return fmt.Errorf("disk image: a UKI of %d bytes is too large for a boot partition of %d MiB", len(d.UKI), esp/mib)
	}
	return create(name, "disk image", d.mode(), func(f *os.File) error {
		size := espStart + esp + StateMiB*mib + tableRoom
		if err := f.Truncate(size); err != nil {
			return err
		}
		t := d.table(esp)
		t.Partitions = append(t.Partitions, d.state(espStart+esp))
		if err := writeTable(f, t, size); err != nil {
			return err
		}
		files, err := d.files()
		if err != nil {
			return err
		}
		return fat32.Volume{Size: esp, Sector: d.Sector, Start: espStart, ID: volumeID, Label: espLabel, Files: files}.Write(f)
	})
}

// state is the partition behind the boot partition.
func (d Disk) state(at int64) *gpt.Partition {
	s := int64(d.Sector)
	return &gpt.Partition{
		Index: 2, Start: uint64(at / s), End: uint64((at+StateMiB*mib)/s) - 1, Size: uint64(StateMiB * mib),
		Type: stateType, Name: stateName, GUID: guid("state", d.UKI),
	}
}

// table names one boot partition. Its GUIDs say which build this is: two
// disks with the same ones carry the same image.
func (d Disk) table(esp int64) *gpt.Table {
	s := int64(d.Sector)
	return &gpt.Table{
		LogicalSectorSize: d.Sector, PhysicalSectorSize: d.Sector, ProtectiveMBR: true, GUID: guid("disk", d.UKI),
		Partitions: []*gpt.Partition{{
			Index: 1, Start: uint64(espStart / s), End: uint64((espStart+esp)/s) - 1, Size: uint64(esp),
			Type: gpt.EFISystemPartition, Name: partition.BootLabel, GUID: guid("ESP", d.UKI),
		}},
	}
}

// guid is an RFC 9562 version 8 UUID of a UKI: a digest, no random number.
func guid(what string, uki []byte) string {
	h := sha256.New()
	h.Write([]byte("zos " + what + "\x00"))
	h.Write(uki)
	b := h.Sum(nil)[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	s := strings.ToUpper(hex.EncodeToString(b))
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

func writeTable(f *os.File, t *gpt.Table, size int64) error {
	var storage backend.Storage = file.New(f, false)
	w, err := storage.Writable()
	if err != nil {
		return err
	}
	if err := t.Write(w, size); err != nil {
		return fmt.Errorf("partition table: %w", err)
	}
	return nil
}

// mode of a medium: a seed holds the private key of a voucher.
func (b Boot) mode() os.FileMode {
	if len(b.Seed) > 0 {
		return 0o600
	}
	return 0o644
}

// create writes a file whole or not at all, with the mode from its first byte
// on, whatever stood there before.
func create(name, what string, mode os.FileMode, fill func(*os.File) error) (err error) {
	tmp := name + ".part"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", what, err)
	}
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp))
		}
	}()
	if err := errors.Join(fill(f), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := os.Rename(tmp, name); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
