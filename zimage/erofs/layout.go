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
	slot      = 32 // an inode's number is its offset divided by this

	layoutPlain  = 0 // all bytes in blocks
	layoutInline = 2 // the last partial block stands behind the inode
)

// maxDepth bounds the recursion over a tree.
const maxDepth = 1024

// inode is a Node with its place in the image.
type inode struct {
	node   *Node
	number uint32 // 1, 2, 3 … in the order of the records
	links  uint32
	xattrs []byte
	runs   [][]dirent // directory
	size   int64
	inline int64 // bytes behind the record; the rest is in blocks
	off    int64 // of the record
	block  int64 // first block; 0 when there is none
}

func (in *inode) nid() uint64 { return uint64(in.off / slot) }

// record is the length of inode, attributes and inline bytes.
func (in *inode) record() int64 { return inodeSize + int64(len(in.xattrs)) + in.inline }

// blocks is how many blocks the inode's bytes take.
func (in *inode) blocks() int64 { return (in.size - in.inline + BlockSize - 1) / BlockSize }

// image is a laid-out tree.
type image struct {
	inodes []*inode
	byNode map[*Node]*inode
	meta   int64 // blocks of superblock, records and directories
	total  int64 // blocks of everything
}

func plan(root *Node) (*image, error) {
	if root == nil || !root.IsDir() {
		return nil, fmt.Errorf("%w: the root is not a directory", ErrTree)
	}
	im := &image{byNode: map[*Node]*inode{}}
	if _, err := im.walk("/", root, nil, 0); err != nil {
		return nil, err
	}
	off := int64(BlockSize)
	for _, in := range im.inodes {
		if n := in.record(); off%BlockSize+n > BlockSize && n <= BlockSize {
			off = align(off, BlockSize)
		}
		in.off = off
		off = align(off+in.record(), slot)
	}
	next := align(off, BlockSize) / BlockSize
	place := func(dirs bool) {
		for _, in := range im.inodes {
			if n := in.blocks(); n > 0 && in.node.IsDir() == dirs {
				in.block = next
				next += n
			}
		}
	}
	place(true)
	im.meta = next
	place(false)
	im.total = next
	if im.total > math.MaxUint32 {
		return nil, fmt.Errorf("%w: %d blocks", ErrTree, im.total)
	}
	return im, nil
}

// walk numbers the tree depth first.
func (im *image) walk(name string, n *Node, parent *inode, depth int) (*inode, error) {
	if in := im.byNode[n]; in != nil {
		if n.IsDir() {
			return nil, fmt.Errorf("%q: %w: a directory stands in two places", name, ErrTree)
		}
		if in.links++; in.links == 0 {
			return nil, fmt.Errorf("%q: %w: too many links", name, ErrTree)
		}
		return in, nil
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: directories deeper than %d", ErrTree, maxDepth)
	}
	if err := n.check(name); err != nil {
		return nil, err
	}
	xattrs, err := encodeXattrs(n.Xattrs)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	in := &inode{node: n, number: uint32(len(im.inodes) + 1), links: 1, xattrs: xattrs, size: n.size()}
	im.byNode[n] = in
	im.inodes = append(im.inodes, in)
	if n.IsDir() {
		if parent == nil {
			parent = in
		}
		in.links = 2
		entries := []dirent{{".", in}, {"..", parent}}
		for _, child := range n.names() {
			c, err := im.walk(path.Join(name, child), n.Children[child], in, depth+1)
			if err != nil {
				return nil, err
			}
			if c.node.IsDir() {
				in.links++
			}
			entries = append(entries, dirent{child, c})
		}
		in.runs = dirBlocks(entries)
		in.size = dirSize(in.runs)
	}
	in.inline = in.tail()
	return in, nil
}

// tail says how many bytes stand inline: the last partial block where it
// fits behind the inode. Large files stay whole blocks, see InlineBelow.
func (in *inode) tail() int64 {
	n := in.size % BlockSize
	large := in.node.Mode&TypeMask == TypeRegular && in.size >= InlineBelow
	if large || inodeSize+int64(len(in.xattrs))+n > BlockSize {
		return 0
	}
	return n
}

func align(n, to int64) int64 { return (n + to - 1) / to * to }

// errShort tells a file that changed under the writer from a failing disk.
var errShort = errors.New("file data ended early")
