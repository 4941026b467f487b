// SPDX-License-Identifier: Apache-2.0

// Package iso writes an ISO 9660 image (ECMA-119) whose only job is to boot
// UEFI: an El Torito catalogue with one entry for the EFI platform, which
// points to a FAT file system inside the image.
//
//	0        partition tables, if the caller writes any (16 blocks are theirs)
//	16       volume descriptor, boot record, terminator
//	19       path tables, root folder, boot catalogue
//	512      the boot partition, aligned to 1 MiB; the root folder lists it as a file
//	the end  room for the backup of a partition table
//
// The same bytes on a USB stick are a disk: firmware then follows the
// partition table to the same file system. Nothing in the image depends on a
// clock.
package iso

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

const (
	// Block is the size of a block of optical media.
	Block = 2048
	// PartitionAt is where the boot partition begins, in bytes.
	PartitionAt = 1 << 20

	tail     = 1 << 20 // behind the boot partition
	volumeAt = 16
	bootAt   = 17
	endAt    = 18
	pathsLE  = 19
	pathsBE  = 20
	rootAt   = 21
	catalog  = 22
	platform = 0xef // EFI
)

// Image is a boot partition of Size bytes that the caller writes at
// PartitionAt.
type Image struct {
	Label string // upper case, at most 32 characters
	Size  int64  // of the boot partition, a multiple of Block
}

// Total is the size of the whole image in bytes.
func (i Image) Total() int64 { return PartitionAt + i.Size + tail }

// Write writes everything around the boot partition. What lies between reads
// as zeros.
func (i Image) Write(w io.WriterAt) error {
	if i.Size <= 0 || i.Size%Block != 0 || i.Total()/Block > 1<<32-1 {
		return fmt.Errorf("ISO 9660: a boot partition of %d bytes, want whole blocks of %d", i.Size, Block)
	}
	files := []file{
		{"BOOT.CAT;1", catalog, Block},
		{"EFI.IMG;1", PartitionAt / Block, uint32(min(i.Size, 1<<32-Block))},
	}
	for at, b := range map[int64][]byte{
		volumeAt: i.volume(), bootAt: bootRecord(), endAt: descriptor(255), rootAt: root(files), catalog: i.catalog(),
		pathsLE: paths(binary.LittleEndian), pathsBE: paths(binary.BigEndian),
	} {
		if _, err := w.WriteAt(b, at*Block); err != nil {
			return fmt.Errorf("write ISO 9660: %w", err)
		}
	}
	return nil
}

func descriptor(kind byte) []byte {
	b := make([]byte, Block)
	b[0], b[6] = kind, 1
	copy(b[1:], "CD001")
	return b
}

// both writes a number in both byte orders, as ISO 9660 does.
func both32(b []byte, v uint32) {
	binary.LittleEndian.PutUint32(b, v)
	binary.BigEndian.PutUint32(b[4:], v)
}

func both16(b []byte, v uint16) {
	binary.LittleEndian.PutUint16(b, v)
	binary.BigEndian.PutUint16(b[2:], v)
}

func fill(b []byte, s string) { copy(b, s+strings.Repeat(" ", max(0, len(b)-len(s)))) }

// volume is the primary volume descriptor, ECMA-119 8.4.
func (i Image) volume() []byte {
	b := descriptor(1)
	fill(b[8:40], "")
	fill(b[40:72], i.Label)
	both32(b[80:], uint32(i.Total()/Block))
	both16(b[120:], 1) // volumes in the set
	both16(b[124:], 1) // number of this one
	both16(b[128:], Block)
	both32(b[132:], pathSize)
	binary.LittleEndian.PutUint32(b[140:], pathsLE)
	binary.BigEndian.PutUint32(b[148:], pathsBE)
	copy(b[156:], record("\x00", rootAt, Block, true))
	fill(b[190:813], "")
	for _, at := range []int{813, 830, 847, 864} { // four dates: none
		copy(b[at:], "0000000000000000")
	}
	b[881] = 1
	return b
}

// bootRecord points to the catalogue.
func bootRecord() []byte {
	b := descriptor(0)
	copy(b[7:], "EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(b[71:], catalog)
	return b
}

// catalog has the validation entry and the one that is booted.
func (i Image) catalog() []byte {
	b := make([]byte, Block)
	b[0], b[1] = 1, platform
	b[30], b[31] = 0x55, 0xaa
	var sum uint16
	for k := 0; k < 32; k += 2 {
		sum += binary.LittleEndian.Uint16(b[k:])
	}
	binary.LittleEndian.PutUint16(b[28:], -sum)
	e := b[32:]
	e[0] = 0x88 // bootable, without emulation
	// The field counts 512-byte sectors and ends at 32 MiB; 0 means up to the
	// end of the medium (UEFI specification, 13.3.2).
	if n := i.Size / 512; n < 1<<16 {
		binary.LittleEndian.PutUint16(e[6:], uint16(n))
	}
	binary.LittleEndian.PutUint32(e[8:], PartitionAt/Block)
	return b
}

const pathSize = 10

// paths is the path table: the root alone.
func paths(order binary.ByteOrder) []byte {
	b := make([]byte, Block)
	b[0] = 1
	order.PutUint32(b[2:], rootAt)
	order.PutUint16(b[6:], 1)
	return b
}

type file struct {
	name string
	at   uint32 // block
	size uint32 // bytes
}

func root(files []file) []byte {
	b := append(record("\x00", rootAt, Block, true), record("\x01", rootAt, Block, true)...)
	for _, f := range files {
		b = append(b, record(f.name, f.at, f.size, false)...)
	}
	return append(b, make([]byte, Block-len(b))...)
}

// record is a directory record, ECMA-119 9.1. Its date is none.
func record(name string, at, size uint32, folder bool) []byte {
	b := make([]byte, (33+len(name)+1)&^1)
	b[0] = byte(len(b))
	both32(b[2:], at)
	both32(b[10:], size)
	if folder {
		b[25] = 2
	}
	both16(b[28:], 1)
	b[32] = byte(len(name))
	copy(b[33:], name)
	return b
}
