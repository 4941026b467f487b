// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"os"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

// CopyTable writes the partition table of an image for a disk of size bytes:
// the same partitions and GUIDs, with the backup at the disk's own end.
func CopyTable(from, to *os.File, sector int, size int64) error {
	t, err := gpt.Read(file.New(from, true), sector, sector)
	if err != nil {
		return fmt.Errorf("partition table of the image: %w", err)
	}
	fresh := &gpt.Table{LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true, GUID: t.GUID}
	for _, p := range t.Partitions {
		if p.Type != gpt.Unused {
			fresh.Partitions = append(fresh.Partitions, p)
		}
	}
	return writeTable(to, fresh, size-size%int64(sector))
}
