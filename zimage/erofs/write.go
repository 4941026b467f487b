// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	superOffset   = 1024
	superMagic    = 0xE0F5E1E2
	compatSum     = 1 // the superblock has a checksum
	compatMTime   = 2 // inodes hold modification times
	blockSizeBits = 12
)

// Extent is where the whole blocks of one file lie.
type Extent struct{ Off, Size int64 } // Size is the file's, unpadded, without inline bytes

// Layout tells where things are, for whoever cuts the image in pieces.
type Layout struct {
	Size  int64    // of the image, a multiple of BlockSize
	Meta  int64    // length of superblock, inodes and directories: the files lie behind
	Files []Extent // in the order of the image, without gap between the blocks
}

// Write lays out a tree and writes its image.
func Write(w io.Writer, root *Node) (Layout, error) {
	im, err := Plan(root)
	if err != nil {
		return Layout{}, err
	}
	return im.Layout(), im.Write(w)
}

// Layout tells where things will be.
func (im *Image) Layout() Layout {
	l := Layout{Size: im.total * BlockSize, Meta: im.meta * BlockSize}
	for _, n := range im.order {
		if n.block != 0 && !n.IsDir() {
			l.Files = append(l.Files, Extent{int64(n.block) * BlockSize, n.size() - int64(n.inline)})
		}
	}
	return l
}

// writeSize is how much is written at once. File data is read to where it is
// written from, and small enough to still be in the processor's cache then.
const writeSize = 256 << 10

// Write writes the image. It reads each file once, in the order of the image.
func (im *Image) Write(w io.Writer) error {
	out := &counter{w: bufio.NewWriterSize(struct{ io.Writer }{w}, writeSize)}
	out.write(im.superblock())
	for _, n := range im.order {
		out.pad(n.start())
		if err := im.writeRecord(out, n); err != nil {
			return err
		}
	}
	for _, n := range im.order {
		if n.block == 0 || !n.IsDir() {
			continue
		}
		runs := n.runs(im.parents[n])
		for i := range n.blocks() {
			out.pad((int64(n.block) + i) * BlockSize)
			out.write(encodeRun(runs[i]))
		}
	}
	for _, n := range im.order {
		if n.block == 0 || n.IsDir() {
			continue
		}
		out.pad(int64(n.block) * BlockSize)
		if err := n.writeData(out, 0, n.size()-int64(n.inline)); err != nil {
			return err
		}
	}
	out.pad(im.total * BlockSize)
	if out.err == nil {
		out.err = out.w.Flush()
	}
	if out.err != nil {
		return fmt.Errorf("write image: %w", out.err)
	}
	return nil
}

// writeRecord writes inode, attributes and inline bytes.
func (im *Image) writeRecord(out *counter, n *Node) error {
	b := make([]byte, inodeSize)
	le := binary.LittleEndian
	layout := uint16(layoutPlain)
	if n.inline > 0 {
		layout = layoutInline
	}
	le.PutUint16(b[0:], layout<<1|1) // bit 0: the extended form
	if len(n.Xattrs) > 0 {
		le.PutUint16(b[2:], uint16((len(n.Xattrs)-xattrHeader)/4+1))
	}
	le.PutUint16(b[4:], uint16(n.Mode))
	le.PutUint64(b[8:], uint64(n.size()))
	le.PutUint32(b[16:], n.block)
	le.PutUint32(b[20:], n.number)
	le.PutUint32(b[24:], n.UID)
	le.PutUint32(b[28:], n.GID)
	le.PutUint64(b[32:], uint64(n.MTime)) // signed in the format too
	le.PutUint32(b[40:], n.Nanos)
	le.PutUint32(b[44:], n.links)
	out.write(b)
	out.write([]byte(n.Xattrs))
	if n.inline == 0 {
		return nil
	}
	if n.IsDir() {
		runs := n.runs(im.parents[n])
		out.write(encodeRun(runs[len(runs)-1]))
		return nil
	}
	return n.writeData(out, n.size()-int64(n.inline), int64(n.inline))
}

// writeData writes a part of a file or symlink.
func (n *Node) writeData(out *counter, off, size int64) error {
	if n.Mode&TypeMask == TypeSymlink {
		out.write([]byte(n.Target[off : off+size]))
		return nil
	}
	if out.err != nil {
		return nil // Write tells it
	}
	got, err := out.w.ReadFrom(io.NewSectionReader(n.Data, n.Off+off, size))
	out.n += got
	if err == nil && got != size {
		err = errShort
	}
	if err != nil {
		return fmt.Errorf("copy file data: %w", err)
	}
	return nil
}

// superblock fills block 0. The checksum covers the block from the
// superblock on, with the field itself zero.
func (im *Image) superblock() []byte {
	b := make([]byte, BlockSize)
	s := b[superOffset:]
	le := binary.LittleEndian
	le.PutUint32(s[0:], superMagic)
	le.PutUint32(s[8:], compatSum|compatMTime)
	s[12] = blockSizeBits
	le.PutUint16(s[14:], uint16(im.order[0].slot))
	le.PutUint64(s[16:], uint64(len(im.order)))
	le.PutUint32(s[36:], uint32(im.total))
	// Linux's crc32c has no final inversion.
	le.PutUint32(s[4:], ^crc32.Checksum(s, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// counter writes, counts, and keeps the first error.
type counter struct {
	w   *bufio.Writer
	n   int64
	err error
}

func (c *counter) write(b []byte) {
	if c.err != nil {
		return
	}
	var n int
	n, c.err = c.w.Write(b)
	c.n += int64(n)
}

// pad writes zeros up to an offset of the image.
func (c *counter) pad(to int64) {
	var zeros [BlockSize]byte
	for c.n < to && c.err == nil {
		c.write(zeros[:min(to-c.n, BlockSize)])
	}
}
