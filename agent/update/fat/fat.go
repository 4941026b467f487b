// SPDX-License-Identifier: Apache-2.0

// Package fat changes a few files of a FAT32 so that a power cut between any
// two writes, or in the middle of the last ones, leaves a file system that
// boots and that Repair makes whole again.
//
// The kernel's own vfat promises neither: it has no order between table,
// folder and contents, a renaming that is cut off leaves two names for one
// file, or none, and what it finds broken it refuses to write to. Here every
// step is small, and the disk is told to have it before the next one begins:
//
//	contents before the table, the table before the entry that points there
//	an entry is gone before its clusters are free
//	the end of a file's chain moves before what is behind it is free
//
// so that no name ever points to what is not its own. What a cut can leave is
// clusters that nobody has, a chain that is longer than its file, or two names
// for one file; Repair knows these, and nothing else.
//
// Only one program may have the volume open, and it must not be mounted for
// writing. Folders are not made.
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Device is a disk or a partition. What Sync returns from is on the disk; of
// what was written since the last Sync, a power cut keeps any part, in whole
// sectors.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

var (
	// ErrFormat says that there is no FAT32 that we can write to.
	ErrFormat = errors.New("no usable FAT32")
	// ErrFull says that there are not enough free clusters.
	ErrFull = errors.New("boot partition is full")
)

const (
	firstCluster = 2
	mask         = 0x0fffffff
	bad          = 0x0ffffff7
	end          = 0x0fffffff
	maxClusters  = 1 << 22 // the table is kept in memory
	maxCluster   = 64 << 10
	minSector    = 512
	maxSector    = 4096
)

// Volume is an open file system.
type Volume struct {
	dev      Device
	sector   int64
	cluster  int64 // bytes
	reserved int64 // sectors before the tables
	perFAT   int64 // sectors of a table
	fats     int64
	info     int64 // sector of FSInfo
	root     uint32
	clusters int64
	table    []uint32 // of all clusters, from 0 on
}

// Open reads the boot sector and the first table.
func Open(dev Device) (*Volume, error) {
	b := make([]byte, minSector)
	if _, err := dev.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read FAT32: %w", err)
	}
	le := binary.LittleEndian
	v := &Volume{dev: dev, sector: int64(le.Uint16(b[11:])), reserved: int64(le.Uint16(b[14:])), fats: int64(b[16]), perFAT: int64(le.Uint32(b[36:])),
		root: le.Uint32(b[44:]), info: int64(le.Uint16(b[48:]))}
	v.cluster = int64(b[13]) * v.sector
	sectors := int64(le.Uint32(b[32:]))
	switch {
	case b[510] != 0x55 || b[511] != 0xaa || string(b[82:87]) != "FAT32" || le.Uint16(b[17:]) != 0 || le.Uint16(b[22:]) != 0:
		return nil, fmt.Errorf("%w: no boot sector of one", ErrFormat)
	case v.sector < minSector || v.sector > maxSector || v.sector&(v.sector-1) != 0 || v.cluster == 0 || v.cluster > maxCluster || v.cluster&(v.cluster-1) != 0:
		return nil, fmt.Errorf("%w: sectors of %d bytes, clusters of %d", ErrFormat, v.sector, v.cluster)
	case v.fats < 1 || v.fats > 2 || v.perFAT == 0 || v.reserved < 2 || v.info < 1 || v.info >= v.reserved:
		return nil, fmt.Errorf("%w: %d tables of %d sectors", ErrFormat, v.fats, v.perFAT)
	}
	v.clusters = (sectors - v.reserved - v.fats*v.perFAT) * v.sector / v.cluster
	if v.clusters < 1 || v.clusters > maxClusters || (v.clusters+firstCluster)*4 > v.perFAT*v.sector || !v.valid(v.root) {
		return nil, fmt.Errorf("%w: %d clusters", ErrFormat, v.clusters)
	}
	raw := make([]byte, (v.clusters+firstCluster)*4)
	if _, err := dev.ReadAt(raw, v.fatAt(0)); err != nil {
		return nil, fmt.Errorf("read FAT32: %w", err)
	}
	v.table = make([]uint32, v.clusters+firstCluster)
	for i := range v.table {
		v.table[i] = le.Uint32(raw[4*i:])
	}
	return v, nil
}

func (v *Volume) fatAt(n int64) int64 { return (v.reserved + n*v.perFAT) * v.sector }

// at is the offset of a cluster.
func (v *Volume) at(c uint32) int64 {
	return (v.reserved+v.fats*v.perFAT)*v.sector + int64(c-firstCluster)*v.cluster
}

func (v *Volume) valid(c uint32) bool { return c >= firstCluster && int64(c) < v.clusters+firstCluster }

// next is what follows a cluster in its chain.
func (v *Volume) next(c uint32) uint32 { return v.table[c] & mask }

// chain lists the clusters from first on; ok is false when it does not end as
// it should.
func (v *Volume) chain(first uint32) (all []uint32, ok bool) {
	for c := first; ; c = v.next(c) {
		if !v.valid(c) || int64(len(all)) > v.clusters {
			return all, c > bad
		}
		all = append(all, c)
	}
}

// need is how many clusters n bytes take.
func (v *Volume) need(n int64) int { return int((n + v.cluster - 1) / v.cluster) }

// set writes links into all tables; the sectors in ascending order.
func (v *Volume) set(links map[uint32]uint32) error {
	dirty := map[int64]bool{}
	for c, to := range links {
		v.table[c] = v.table[c]&^mask | to&mask
		dirty[int64(c)*4/v.sector] = true
	}
	sectors := make([]int64, 0, len(dirty))
	for s := range dirty {
		sectors = append(sectors, s)
	}
	slices.Sort(sectors)
	for n := range v.fats {
		for _, s := range sectors {
			if err := v.write(v.tableSector(s), v.fatAt(n)+s*v.sector); err != nil {
				return err
			}
		}
	}
	return v.sync()
}

// tableSector is a sector of the table as it should stand on the disk.
func (v *Volume) tableSector(s int64) []byte {
	b := make([]byte, v.sector)
	for i := range b[:v.sector/4] {
		if c := s*v.sector/4 + int64(i); c < int64(len(v.table)) {
			binary.LittleEndian.PutUint32(b[4*i:], v.table[c])
		}
	}
	return b
}

func (v *Volume) write(b []byte, at int64) error {
	if _, err := v.dev.WriteAt(b, at); err != nil {
		return fmt.Errorf("write FAT32: %w", err)
	}
	return nil
}

func (v *Volume) sync() error {
	if err := v.dev.Sync(); err != nil {
		return fmt.Errorf("write FAT32 out: %w", err)
	}
	return nil
}

func (v *Volume) read(b []byte, at int64) error {
	if _, err := v.dev.ReadAt(b, at); err != nil {
		return fmt.Errorf("read FAT32: %w", err)
	}
	return nil
}

// allocate takes n free clusters as a chain of their own, behind which after
// stands. On the disk they belong to nobody until somebody points to them.
func (v *Volume) allocate(n int, after uint32) ([]uint32, error) {
	var got []uint32
	for c := uint32(firstCluster); v.valid(c) && len(got) < n; c++ {
		if v.next(c) == 0 {
			got = append(got, c)
		}
	}
	if len(got) < n {
		return nil, fmt.Errorf("%w: %d clusters of %d bytes are free, %d are needed", ErrFull, len(got), v.cluster, n)
	}
	links := map[uint32]uint32{}
	for i, c := range got {
		links[c] = after
		if i+1 < len(got) {
			links[c] = got[i+1]
		}
	}
	return got, v.set(links)
}

// release frees clusters to which nothing points any more.
func (v *Volume) release(clusters []uint32) error {
	if len(clusters) == 0 {
		return nil
	}
	links := map[uint32]uint32{}
	for _, c := range clusters {
		links[c] = 0
	}
	return v.set(links)
}

// Free is how many bytes are in free clusters.
func (v *Volume) Free() int64 {
	n := int64(0)
	for _, to := range v.table[firstCluster:] {
		if to&mask == 0 {
			n++
		}
	}
	return n * v.cluster
}

// count writes how much is free where others look for it. It is a hint.
func (v *Volume) count() error {
	b := make([]byte, v.sector)
	if err := v.read(b, v.info*v.sector); err != nil {
		return err
	}
	if string(b[:4]) != "RRaA" {
		return nil
	}
	const unknown = 0xffffffff // where to look for free ones
	free := uint32(v.Free() / v.cluster)
	le := binary.LittleEndian
	if le.Uint32(b[488:]) == free {
		return nil
	}
	le.PutUint32(b[488:], free)
	le.PutUint32(b[492:], unknown)
	return errors.Join(v.write(b, v.info*v.sector), v.sync())
}
