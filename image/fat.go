// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// errFAT says that the file system that go-diskfs wrote is not as expected.
var errFAT = errors.New("unexpected FAT32")

const (
	fatEntry   = 32
	attrLong   = 0x0f
	attrDir    = 0x10
	fatEnd     = 0x0ffffff8
	fatMask    = 0x0fffffff
	fatDepth   = 8      // folders in folders; ours has two
	fatDate    = 0x0021 // 1980-01-01, the first day that FAT knows
	freeCount  = 488    // offsets in the FSInfo sector
	freeNext   = 492
	freeAbsent = 0xffffffff
	maxFAT     = 1 << 17 // sectors of one table: 64 MiB, more than any boot partition needs
)

// rw is what tidyFAT works on.
type rw interface {
	io.ReaderAt
	io.WriterAt
}

// fat is a FAT32 file system inside a disk image.
type fat struct {
	f        rw
	start    int64
	cluster  int64 // bytes
	fatStart int64
	data     int64
	root     uint32
	entries  uint32
}

// tidyFAT mends what go-diskfs leaves open: ".." of a folder in the root must
// name cluster 0, dates must not be of today, the volume must not have more
// clusters than its table, and needs its number and its count of free ones. Then fsck.vfat has nothing to say, and the
// same files give the same bytes.
func tidyFAT(f rw, start int64) error {
	boot := make([]byte, sector)
	if _, err := f.ReadAt(boot, start); err != nil {
		return fmt.Errorf("read FAT32: %w", err)
	}
	bytesPer := int64(binary.LittleEndian.Uint16(boot[11:]))
	reserved := int64(binary.LittleEndian.Uint16(boot[14:]))
	perFAT := int64(binary.LittleEndian.Uint32(boot[36:]))
	total := int64(binary.LittleEndian.Uint32(boot[32:]))
	info, backup := int64(binary.LittleEndian.Uint16(boot[48:])), int64(binary.LittleEndian.Uint16(boot[50:]))
	if bytesPer != sector || boot[13] == 0 || boot[16] != 2 || perFAT == 0 || perFAT > maxFAT || info == 0 || backup == 0 {
		return fmt.Errorf("%w: boot sector", errFAT)
	}
	t := fat{f: f, start: start, cluster: int64(boot[13]) * sector, fatStart: start + reserved*sector, root: binary.LittleEndian.Uint32(boot[44:])}
	t.data = t.fatStart + 2*perFAT*sector
	t.entries = uint32((total*sector-(t.data-start))/t.cluster) + 2
	if room := uint32(perFAT * sector / 4); t.entries > room {
		// go-diskfs makes the table too short for the last clusters: the volume
		// ends before them.
		t.entries = room
		total = (t.data-start)/sector + int64(room-2)*t.cluster/sector
		binary.LittleEndian.PutUint32(boot[32:], uint32(total))
	}
	if err := t.folder(t.root, 0, 0); err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(boot[67:], volumeID)
	// Sectors before the partition: some firmware wants the truth here.
	binary.LittleEndian.PutUint32(boot[28:], uint32(start/sector))
	for _, at := range []int64{0, backup} {
		if _, err := f.WriteAt(boot, start+at*sector); err != nil {
			return fmt.Errorf("write FAT32: %w", err)
		}
	}
	return t.count(info, backup)
}

// folder mends the entries of one folder and goes into its sub-folders.
// parent is what ".." has to name: 0 for the root.
func (t fat) folder(first, parent uint32, depth int) error {
	if depth > fatDepth {
		return fmt.Errorf("%w: folders nest too deep", errFAT)
	}
	for c := first; c < fatEnd; {
		buf := make([]byte, t.cluster)
		at := t.data + int64(c-2)*t.cluster
		if _, err := t.f.ReadAt(buf, at); err != nil {
			return fmt.Errorf("read FAT32: %w", err)
		}
		for i := 0; i < len(buf) && buf[i] != 0; i += fatEntry {
			e := buf[i : i+fatEntry]
			if e[11]&attrLong == attrLong || e[0] == 0xe5 {
				continue
			}
			e[13] = 0
			for _, o := range []int{14, 22} { // times of creation and writing
				binary.LittleEndian.PutUint16(e[o:], 0)
			}
			for _, o := range []int{16, 18, 24} { // dates of creation, reading and writing
				binary.LittleEndian.PutUint16(e[o:], fatDate)
			}
			child := uint32(binary.LittleEndian.Uint16(e[20:]))<<16 | uint32(binary.LittleEndian.Uint16(e[26:]))
			switch {
			case string(e[:11]) == "..         ":
				binary.LittleEndian.PutUint16(e[20:], uint16(parent>>16))
				binary.LittleEndian.PutUint16(e[26:], uint16(parent))
			case e[0] != '.' && e[11]&attrDir != 0:
				up := first
				if first == t.root {
					up = 0
				}
				if err := t.folder(child, up, depth+1); err != nil {
					return err
				}
			}
		}
		if _, err := t.f.WriteAt(buf, at); err != nil {
			return fmt.Errorf("write FAT32: %w", err)
		}
		next, err := t.next(c)
		if err != nil {
			return err
		}
		c = next
	}
	return nil
}

func (t fat) next(c uint32) (uint32, error) {
	if c < 2 || c >= t.entries {
		return 0, fmt.Errorf("%w: cluster %d of %d", errFAT, c, t.entries)
	}
	var b [4]byte
	if _, err := t.f.ReadAt(b[:], t.fatStart+int64(c)*4); err != nil {
		return 0, fmt.Errorf("read FAT32: %w", err)
	}
	return binary.LittleEndian.Uint32(b[:]) & fatMask, nil
}

// count writes the number of free clusters into both FSInfo sectors.
func (t fat) count(info, backup int64) error {
	table := make([]byte, int64(t.entries)*4)
	if _, err := t.f.ReadAt(table, t.fatStart); err != nil {
		return fmt.Errorf("read FAT32: %w", err)
	}
	free, next := uint32(0), uint32(freeAbsent)
	for c := uint32(2); c < t.entries; c++ {
		if binary.LittleEndian.Uint32(table[c*4:])&fatMask == 0 {
			if free++; next == freeAbsent {
				next = c
			}
		}
	}
	buf := make([]byte, sector)
	if _, err := t.f.ReadAt(buf, t.start+info*sector); err != nil {
		return fmt.Errorf("read FAT32: %w", err)
	}
	binary.LittleEndian.PutUint32(buf[freeCount:], free)
	binary.LittleEndian.PutUint32(buf[freeNext:], next)
	for _, at := range []int64{info, backup + info} {
		if _, err := t.f.WriteAt(buf, t.start+at*sector); err != nil {
			return fmt.Errorf("write FAT32: %w", err)
		}
	}
	return nil
}
