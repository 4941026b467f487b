// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

const (
	sector   = 512
	mib      = int64(1) << 20
	espStart = mib // the usual alignment
	espLabel = "ZOS"
	bootPath = "/EFI/BOOT/BOOTX64.EFI"
	seedPath = "/zos/seed.json"
	diskGUID = "7A6F7300-0000-4000-8000-000000000001"
	espGUID  = "7A6F7300-0000-4000-8000-000000000002"
	volumeID = 0x7a6f7300
)

// Disk is a bootable disk image: GPT with one EFI system partition.
type Disk struct {
	ESPMiB int64
	UKI    []byte
	Seed   []byte // nil: none
}

// Write makes the image, sparse. The file is new or is replaced.
func (d Disk) Write(name string) (err error) {
	esp := d.ESPMiB * mib
	// Half of the partition stays free, so that the next UKI fits beside this one.
	if int64(len(d.UKI)) > esp/2 {
		return fmt.Errorf("disk image: a UKI of %d bytes is too large for a boot partition of %d MiB", len(d.UKI), d.ESPMiB)
	}
	tmp := name + ".part"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("disk image: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp))
		}
	}()
	if err := errors.Join(d.fill(f, esp), f.Close()); err != nil {
		return fmt.Errorf("disk image: %w", err)
	}
	if err := os.Rename(tmp, name); err != nil {
		return fmt.Errorf("disk image: %w", err)
	}
	return nil
}

func (d Disk) fill(f *os.File, esp int64) error {
	total := espStart + esp + mib // the last MiB holds the backup table
	if err := f.Truncate(total); err != nil {
		return err
	}
	storage := file.New(f, false)
	table := &gpt.Table{
		LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true, GUID: diskGUID,
		Partitions: []*gpt.Partition{{
			Index: 1, Start: uint64(espStart / sector), End: uint64((espStart+esp)/sector) - 1, Size: uint64(esp),
			Type: gpt.EFISystemPartition, Name: "zos ESP", GUID: espGUID,
		}},
	}
	w, err := storage.Writable()
	if err != nil {
		return err
	}
	if err := table.Write(w, total); err != nil {
		return fmt.Errorf("partition table: %w", err)
	}
	fs, err := fat32.Create(backend.Sub(storage, espStart, esp), esp, 0, sector, espLabel, true)
	if err != nil {
		return fmt.Errorf("FAT32: %w", err)
	}
	put := func(name string, content []byte) error {
		if err := fs.Mkdir(path.Dir(name)); err != nil {
			return fmt.Errorf("FAT32: folder of %s: %w", name, err)
		}
		out, err := fs.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_TRUNC)
		if err != nil {
			return fmt.Errorf("FAT32: %s: %w", name, err)
		}
		n, err := out.Write(content)
		if err = errors.Join(err, out.Close()); err != nil || n != len(content) {
			return fmt.Errorf("FAT32: %s: %d of %d bytes written: %w", name, n, len(content), err)
		}
		return nil
	}
	if err := put(bootPath, d.UKI); err != nil {
		return err
	}
	if d.Seed != nil {
		if err := put(seedPath, d.Seed); err != nil {
			return err
		}
	}
	return tidyFAT(f, espStart)
}
