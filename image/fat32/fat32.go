// SPDX-License-Identifier: Apache-2.0

package fat32

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrTooLarge says that the files do not fit into the volume.
var ErrTooLarge = errors.New("too large for the volume")

const (
	minClusters = 65525 // fewer make it FAT16 for most readers
	maxClusters = 0x0ffffff5
	endOfChain  = 0x0fffffff
	fatMask     = 0x0fffffff
	badCluster  = 0x0ffffff7 // this and above ends a chain or is no cluster
	rootCluster = 2
	entrySize   = 32
	infoSector  = 1
	backupBoot  = 6
	minReserved = 32
	maxCluster  = 32 << 10 // bytes
	mediaFixed  = 0xf8
	firstDay    = 1<<5 | 1 // 1980-01-01
	attrVolume  = 0x08
	attrFolder  = 0x10
	attrFile    = 0x20
	attrLong    = 0x0f
)

// File is one file of a volume. Folders are implied by paths.
type File struct {
	Path    string // "/EFI/BOOT/BOOTX64.EFI": absolute, clean, printable ASCII
	Content []byte
}

// Volume is a file system to be written.
type Volume struct {
	Size   int64  // bytes, a multiple of the sector
	Sector int    // bytes per sector, 512 or 4096, as the disk has them
	Start  int64  // bytes before the volume on its disk
	ID     uint32 // serial number
	Label  string // at most 11 characters, upper case
	Files  []File
}

// MinSize is the least size of a volume whose sectors have so many bytes.
func MinSize(sector int) int64 {
	// The clusters, two tables of four bytes each, what is reserved, and slack.
	n := int64(minClusters) * (int64(sector) + 8)
	return (n + 256*int64(sector) + (1<<20 - 1)) &^ (1<<20 - 1)
}

// geometry is where the parts of a volume lie.
type geometry struct {
	sector, cluster int64 // bytes
	reserved        int64 // sectors
	perFAT          int64 // sectors
	sectors         int64
	clusters        int64 // number
}

func (g geometry) fatAt(n int64) int64 { return (g.reserved + n*g.perFAT) * g.sector }

// at is the offset of a cluster.
func (g geometry) at(c uint32) int64 {
	return (g.reserved+2*g.perFAT)*g.sector + int64(c-rootCluster)*g.cluster
}

// plan chooses the largest clusters that leave enough of them to be FAT32:
// optical media and slow firmware read long pieces better.
func (v Volume) plan() (geometry, error) {
	if v.Sector != 512 && v.Sector != 4096 {
		return geometry{}, fmt.Errorf("FAT32: sectors of %d bytes, want 512 or 4096", v.Sector)
	}
	g := geometry{sector: int64(v.Sector), sectors: v.Size / int64(v.Sector)}
	if v.Size%g.sector != 0 || g.sectors > 1<<32-1 || v.Start%g.sector != 0 {
		return geometry{}, fmt.Errorf("FAT32: a volume of %d bytes at %d, want whole sectors, fewer than 2^32", v.Size, v.Start)
	}
	for g.cluster = maxCluster; g.cluster >= g.sector; g.cluster /= 2 {
		per := g.cluster / g.sector
		g.reserved = minReserved
		g.perFAT = ((g.sectors/per+2)*4 + g.sector - 1) / g.sector
		// Clusters begin at a multiple of 4096, counted from the volume.
		for (g.reserved+2*g.perFAT)*g.sector%4096 != 0 {
			g.reserved++
		}
		g.clusters = (g.sectors - g.reserved - 2*g.perFAT) / per
		if g.clusters >= minClusters && g.clusters <= maxClusters {
			return g, nil
		}
	}
	return geometry{}, fmt.Errorf("FAT32: a volume of %d bytes has too few clusters, want at least %d bytes", v.Size, MinSize(v.Sector))
}

// Write puts the volume at v.Start of w, which reads as zeros there.
func (v Volume) Write(w io.WriterAt) error {
	g, err := v.plan()
	if err != nil {
		return err
	}
	root, err := v.tree()
	if err != nil {
		return err
	}
	next := uint32(rootCluster)
	root.place(g, &next)
	used := int64(next - rootCluster)
	if used > g.clusters {
		return fmt.Errorf("FAT32: %w: files need %d clusters of %d bytes, there are %d", ErrTooLarge, used, g.cluster, g.clusters)
	}
	put := func(b []byte, at int64) error {
		if _, err := w.WriteAt(b, v.Start+at); err != nil {
			return fmt.Errorf("write FAT32: %w", err)
		}
		return nil
	}
	table := make([]byte, int64(next)*4)
	binary.LittleEndian.PutUint32(table, 0x0fffff00|mediaFixed)
	binary.LittleEndian.PutUint32(table[4:], endOfChain)
	if err := root.write(g, table, put); err != nil {
		return err
	}
	for n := range int64(2) {
		if err := put(table, g.fatAt(n)); err != nil {
			return err
		}
	}
	boot, info := v.bootSector(g), fsInfo(g, uint32(g.clusters-used), next)
	for _, at := range []int64{0, backupBoot} {
		if err := errors.Join(put(boot, at*g.sector), put(info, (at+infoSector)*g.sector)); err != nil {
			return err
		}
	}
	return nil
}

func (v Volume) bootSector(g geometry) []byte {
	b := make([]byte, g.sector)
	copy(b, "\xeb\x58\x90ZOS     ")
	le := binary.LittleEndian
	le.PutUint16(b[11:], uint16(g.sector))
	b[13] = byte(g.cluster / g.sector)
	le.PutUint16(b[14:], uint16(g.reserved))
	b[16], b[21] = 2, mediaFixed
	le.PutUint16(b[24:], 63) // geometry of BIOS days, read by nobody
	le.PutUint16(b[26:], 255)
	le.PutUint32(b[28:], uint32(v.Start/g.sector)) // some firmware wants the truth here
	le.PutUint32(b[32:], uint32(g.sectors))
	le.PutUint32(b[36:], uint32(g.perFAT))
	le.PutUint32(b[44:], rootCluster)
	le.PutUint16(b[48:], infoSector)
	le.PutUint16(b[50:], backupBoot)
	b[64], b[66] = 0x80, 0x29
	le.PutUint32(b[67:], v.ID)
	copy(b[71:82], fmt.Sprintf("%-11s", v.Label))
	copy(b[82:90], "FAT32   ")
	b[90], b[91] = 0xeb, 0xfe // who boots this with a BIOS sees nothing happen
	b[510], b[511] = 0x55, 0xaa
	return b
}

func fsInfo(g geometry, free, next uint32) []byte {
	b := make([]byte, g.sector)
	le := binary.LittleEndian
	copy(b, "RRaA")
	copy(b[484:], "rrAa")
	le.PutUint32(b[488:], free)
	le.PutUint32(b[492:], next)
	b[510], b[511] = 0x55, 0xaa
	return b
}

// checkPath refuses what FAT or the firmware would read otherwise.
func checkPath(p string) error {
	if !strings.HasPrefix(p, "/") || len(p) > 200 {
		return fmt.Errorf("FAT32: path %q, want an absolute one", p)
	}
	for _, name := range strings.Split(p[1:], "/") {
		if name == "" || name != strings.Trim(name, " .") {
			return fmt.Errorf("FAT32: path %q has a name that FAT cannot hold", p)
		}
		for _, c := range name {
			if c <= ' ' || c > '~' || strings.ContainsRune(`"*:<>?\|`, c) {
				return fmt.Errorf("FAT32: path %q has a character that FAT cannot hold", p)
			}
		}
	}
	return nil
}
