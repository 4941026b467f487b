// SPDX-License-Identifier: Apache-2.0

package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/zos-node/zos/image/fat32"
	"github.com/zos-node/zos/image/iso"
)

// Media are the files that carry the UKI, by the name they have in the
// result's folder.
const (
	MediumUKI    = "node.uki"
	MediumDisk   = "node.img"    // disks and USB sticks with sectors of 512 bytes
	MediumDisk4K = "node-4k.img" // disks with sectors of 4096 bytes
	MediumISO    = "node.iso"    // optical media, virtual ones, USB sticks
	NetbootDir   = "netboot"     // what a boot server hands out
	// NetbootUKI is the UKI there. Firmware tells programs from disks by the
	// ending, and refuses what has another one.
	NetbootUKI = "node.efi"
)

// media writes all of them from the same bytes.
func (b *builder) media(boot Boot) error {
	out := func(name string) string { return filepath.Join(b.Out, name) }
	if err := os.MkdirAll(out(NetbootDir), 0o755); err != nil {
		return fmt.Errorf("media: %w", err)
	}
	err := errors.Join(
		Disk{Boot: boot, ESPMiB: b.Board.ESPMiB}.Write(out(MediumDisk)),
		Disk{Boot: boot, ESPMiB: b.Board.ESPMiB, Sector: 4096}.Write(out(MediumDisk4K)),
		ISO{boot}.Write(out(MediumISO)),
	)
	if err != nil {
		return err
	}
	for _, n := range []string{MediumDisk, MediumDisk4K, MediumISO} {
		if b.res.Files[n], err = fileItem(out(n)); err != nil {
			return err
		}
	}
	return errors.Join(
		b.write(filepath.Join(NetbootDir, NetbootUKI), boot.UKI),
		b.write(filepath.Join(NetbootDir, ipxeName), IPXE(b.res.Cmdline)),
	)
}

func fileItem(name string) (Item, error) {
	f, err := os.Open(name)
	if err != nil {
		return Item{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return Item{}, fmt.Errorf("read %s: %w", name, err)
	}
	return Item{n, "sha256:" + hex.EncodeToString(h.Sum(nil))}, nil
}

// ISO is a medium for optical drives, which is also a disk.
type ISO struct{ Boot }

// Write makes the image. The file is new or is replaced.
func (i ISO) Write(name string) error {
	const sector = 512 // of the partition table; optical media have none
	size := max(fat32.MinSize(sector), (int64(len(i.UKI)+len(i.Loader))+8*mib)&^(mib-1))
	medium := iso.Image{Label: espLabel, Size: size}
	return create(name, "ISO", i.mode(), func(f *os.File) error {
		if err := f.Truncate(medium.Total()); err != nil {
			return err
		}
		files, err := i.files()
		if err != nil {
			return err
		}
		if err := medium.Write(f); err != nil {
			return err
		}
		if err := writeTable(f, Disk{Boot: i.Boot, Sector: sector}.table(size), medium.Total()); err != nil {
			return err
		}
		return fat32.Volume{Size: size, Sector: sector, Start: iso.PartitionAt, ID: volumeID, Label: espLabel, Files: files}.Write(f)
	})
}
