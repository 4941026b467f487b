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

// Write writes the image of a tree. It reads each file once, in the order of
// the image, and needs memory only for the inodes.
func Write(w io.Writer, root *Node) (Layout, error) {
	im, err := plan(root)
	if err != nil {
		return Layout{}, err
	}
	out := &counter{w: bufio.NewWriterSize(w, 1<<20), buf: make([]byte, 256<<10)}
	out.write(im.superblock())
	for _, in := range im.inodes {
		out.pad(in.off)
		if err := im.writeRecord(out, in); err != nil {
			return Layout{}, err
		}
	}
	l := Layout{Size: im.total * BlockSize, Meta: im.meta * BlockSize}
	for _, in := range im.inodes {
		if in.block == 0 || !in.node.IsDir() {
			continue
		}
		for i := range in.blocks() {
			out.pad((in.block + i) * BlockSize)
			out.write(encodeRun(in.runs[i]))
		}
	}
	for _, in := range im.inodes {
		if in.block == 0 || in.node.IsDir() {
			continue
		}
		out.pad(in.block * BlockSize)
		if err := in.writeData(out, 0, in.size-in.inline); err != nil {
			return Layout{}, err
		}
		l.Files = append(l.Files, Extent{in.block * BlockSize, in.size - in.inline})
	}
	out.pad(l.Size)
	if out.err == nil {
		out.err = out.w.Flush()
	}
	if out.err != nil {
		return Layout{}, fmt.Errorf("write image: %w", out.err)
	}
	return l, nil
}

// writeRecord writes inode, attributes and inline bytes.
func (im *image) writeRecord(out *counter, in *inode) error {
	b := make([]byte, inodeSize)
	le := binary.LittleEndian
	layout := uint16(layoutPlain)
	if in.inline > 0 {
		layout = layoutInline
	}
	le.PutUint16(b[0:], layout<<1|1) // bit 0: the extended form
	if len(in.xattrs) > 0 {
		le.PutUint16(b[2:], uint16((len(in.xattrs)-xattrHeader)/4+1))
	}
	le.PutUint16(b[4:], uint16(in.node.Mode))
	le.PutUint64(b[8:], uint64(in.size))
	le.PutUint32(b[16:], uint32(in.block))
	le.PutUint32(b[20:], in.number)
	le.PutUint32(b[24:], in.node.UID)
	le.PutUint32(b[28:], in.node.GID)
	le.PutUint64(b[32:], uint64(in.node.MTime))
	le.PutUint32(b[44:], in.links)
	out.write(b)
	out.write(in.xattrs)
	if in.inline == 0 {
		return nil
	}
	if in.node.IsDir() {
		out.write(encodeRun(in.runs[len(in.runs)-1]))
		return nil
	}
	return in.writeData(out, in.size-in.inline, in.inline)
}

// writeData writes a part of a file or symlink.
func (in *inode) writeData(out *counter, off, n int64) error {
	if in.node.Mode&TypeMask == TypeSymlink {
		out.write([]byte(in.node.Target[off : off+n]))
		return nil
	}
	got, err := io.CopyBuffer(out, io.NewSectionReader(in.node.Data, off, n), out.buf)
	if err == nil && got != n {
		err = errShort
	}
	if err != nil {
		return fmt.Errorf("copy file data: %w", err)
	}
	return nil
}

// superblock fills block 0. The checksum covers the block from the
// superblock on, with the field itself zero.
func (im *image) superblock() []byte {
	b := make([]byte, BlockSize)
	s := b[superOffset:]
	le := binary.LittleEndian
	le.PutUint32(s[0:], superMagic)
	le.PutUint32(s[8:], compatSum|compatMTime)
	s[12] = blockSizeBits
	le.PutUint16(s[14:], uint16(im.inodes[0].nid()))
	le.PutUint64(s[16:], uint64(len(im.inodes)))
	le.PutUint32(s[36:], uint32(im.total))
	// Linux's crc32c has no final inversion.
	le.PutUint32(s[4:], ^crc32.Checksum(s, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// counter writes, counts, and keeps the first error.
type counter struct {
	w   *bufio.Writer
	buf []byte // for copies
	n   int64
	err error
}

func (c *counter) Write(b []byte) (int, error) {
	c.write(b)
	if c.err != nil {
		return 0, c.err
	}
	return len(b), nil
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
