// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"errors"
	"fmt"
	"math"
	"path"
)

// BlockSize is the only block size: bigger ones cannot be mounted on kernels
// with 4096-byte pages.
const BlockSize = 4096

const (
	inodeSize = 64
	slotSize  = 32 // an inode's number is its offset divided by this

	layoutPlain  = 0 // all bytes in blocks
	layoutInline = 2 // the last partial block stands behind the inode
)

// maxDepth bounds the recursion over a tree.
const maxDepth = 1024

// Image is a laid-out tree. The tree must not change any more.
type Image struct {
	order   []*Node         // of the records
	parents map[*Node]*Node // of directories
	meta    int64           // blocks of superblock, records and directories
	total   int64           // blocks of everything
}

// record is the length of inode, attributes and inline bytes.
func (n *Node) record() int64 { return inodeSize + 4*int64(n.xattrs) + int64(n.inline) }

// blocks is how many blocks the inode's bytes take.
func (n *Node) blocks() int64 { return (n.size() - int64(n.inline) + BlockSize - 1) / BlockSize }

// start is the offset of the record.
func (n *Node) start() int64 { return int64(n.slot) * slotSize }

// Plan lays a tree out. It needs memory for a pointer per inode.
func Plan(root *Node) (*Image, error) {
	if root == nil || !root.IsDir() {
		return nil, fmt.Errorf("%w: the root is not a directory", ErrTree)
	}
	im := &Image{parents: map[*Node]*Node{}}
	if err := im.walk("/", root, root, 0); err != nil {
		return nil, err
	}
	off := int64(BlockSize)
	for _, n := range im.order {
		if size := n.record(); off%BlockSize+size > BlockSize && size <= BlockSize {
			off = align(off, BlockSize)
		}
		if off/slotSize > math.MaxUint32 {
			return nil, fmt.Errorf("%w: %d bytes of inodes", ErrTree, off)
		}
		n.slot = uint32(off / slotSize)
		off = align(off+n.record(), slotSize)
	}
	next := align(off, BlockSize) / BlockSize
	assign := func(dirs bool) {
		for _, n := range im.order {
			if blocks := n.blocks(); blocks > 0 && n.IsDir() == dirs {
				n.block = uint32(next)
				next += blocks
			}
		}
	}
	assign(true)
	im.meta = next
	assign(false)
	im.total = next
	if im.total > math.MaxUint32 {
		return nil, fmt.Errorf("%w: %d blocks", ErrTree, im.total)
	}
	return im, nil
}

// walk numbers the tree depth first.
func (im *Image) walk(name string, n, parent *Node, depth int) error {
	if n.image == im {
		if n.IsDir() {
			return fmt.Errorf("%q: %w: a directory stands in two places", name, ErrTree)
		}
		if n.links++; n.links == 0 {
			return fmt.Errorf("%q: %w: too many links", name, ErrTree)
		}
		return nil
	}
	if depth > maxDepth {
		return fmt.Errorf("%w: directories deeper than %d", ErrTree, maxDepth)
	}
	if err := n.check(name); err != nil {
		return err
	}
	if uint64(len(im.order)) == math.MaxUint32 { // an int may have 32 bits
		return fmt.Errorf("%w: too many inodes", ErrTree)
	}
	n.place = place{number: uint32(len(im.order) + 1), links: 1, xattrs: uint16(len(n.Xattrs) / 4), image: im}
	im.order = append(im.order, n)
	if n.IsDir() {
		im.parents[n] = parent
		n.links = 2
		for _, child := range n.names() {
			c := n.Children[child]
			if err := im.walk(path.Join(name, child), c, n, depth+1); err != nil {
				return err
			}
			if c.IsDir() {
				n.links++
			}
		}
		n.Size = dirSize(n.runs(parent))
	}
	n.inline = n.tail()
	return nil
}

// tail says how many bytes stand inline: the last partial block where it
// fits behind the inode. Large files stay whole blocks, see InlineBelow.
func (n *Node) tail() uint16 {
	size := n.size()
	tail := size % BlockSize
	large := n.Mode&TypeMask == TypeRegular && size >= InlineBelow
	if large || inodeSize+4*int64(n.xattrs)+tail > BlockSize {
		return 0
	}
	return uint16(tail)
}

func align(n, to int64) int64 { return (n + to - 1) / to * to }

// errShort tells a file that changed under the writer from a failing disk.
var errShort = errors.New("file data ended early")

// Extents tells where the bytes of a file lie: what stands inline, with the
// inode, and its whole blocks.
func (im *Image) Extents(n *Node) []Extent {
	var out []Extent
	if n.image != im {
		return nil
	}
	if n.inline > 0 {
		out = append(out, Extent{n.start() + inodeSize + 4*int64(n.xattrs), int64(n.inline)})
	}
	if n.block != 0 {
		out = append(out, Extent{int64(n.block) * BlockSize, n.size() - int64(n.inline)})
	}
	return out
}
