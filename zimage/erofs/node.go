// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
)

// File types as in st_mode.
const (
	TypeMask    = 0o170000
	TypeFIFO    = 0o010000
	TypeDir     = 0o040000
	TypeRegular = 0o100000
	TypeSymlink = 0o120000
)

const (
	// MaxName is the longest name of a directory entry.
	MaxName = 255
	// MaxTarget is the longest symlink target that Linux follows.
	MaxTarget = 4095
	// InlineBelow is the size from which on a file is whole blocks.
	InlineBelow = 64 << 10
)

// ErrTree means that a tree cannot be an EROFS image.
var ErrTree = errors.New("not a tree that EROFS can hold")

// Node is one inode. A node that stands in several directories, or under
// several names, is one inode with as many links; directories stand once.
//
// An image has as many of them in memory as it has inodes, so a Node also
// holds its own place in it: of two plans of one tree only the later counts.
type Node struct {
	Mode     uint32 // type and permissions, as st_mode
	UID, GID uint32
	Nanos    uint32 // of the time, below 1e9
	place
	MTime    int64            // seconds since 1970, or before
	Xattrs   string           // as EncodeXattrs gives them
	Children map[string]*Node // directory
	Target   string           // symlink
	Data     io.ReaderAt      // regular file that is not empty: its bytes
	Off      int64            // are these of Data, from here
	Size     int64            // on; of a directory Plan sets it
}

// place is where an inode stands in the image that is being made.
type place struct {
	number uint32 // 1, 2, 3 … in the order of the records
	links  uint32
	slot   uint32 // of the record: its offset divided by slotSize
	block  uint32 // first block; 0 when there is none
	inline uint16 // bytes behind the record; the rest is in blocks
	xattrs uint16 // length of the attributes, in units of four bytes
	image  *Image // whose the fields above are
}

// IsDir tells whether n is a directory.
func (n *Node) IsDir() bool { return n.Mode&TypeMask == TypeDir }

// size is the length of what the inode holds. That of a directory is known
// when it has been laid out.
func (n *Node) size() int64 {
	switch n.Mode & TypeMask {
	case TypeRegular, TypeDir:
		return n.Size
	case TypeSymlink:
		return int64(len(n.Target))
	}
	return 0
}

// check refuses what the format cannot say, or what Linux would not accept.
func (n *Node) check(path string) error {
	bad := func(reason string) error { return fmt.Errorf("%q: %w: %s", path, ErrTree, reason) }
	if n.Nanos >= 1e9 {
		return bad("time of more than a second behind its second")
	}
	if len(n.Xattrs) > maxXattrs || len(n.Xattrs)%4 != 0 || n.Xattrs != "" && len(n.Xattrs) < xattrHeader {
		return bad("attributes that EncodeXattrs does not give")
	}
	if n.Mode > 0xffff {
		return bad("mode has more than 16 bits")
	}
	if n.Children != nil && !n.IsDir() {
		return bad("children of what is not a directory")
	}
	switch n.Mode & TypeMask {
	case TypeDir, TypeFIFO:
	case TypeRegular:
		if n.Size < 0 || n.Off < 0 || n.Size > 0 && n.Data == nil {
			return bad("a file without its bytes")
		}
	case TypeSymlink:
		if n.Target == "" || len(n.Target) > MaxTarget || strings.ContainsRune(n.Target, 0) {
			return bad("symlink target is empty, too long, or has a NUL")
		}
	default:
		return bad(fmt.Sprintf("file type %#o", n.Mode&TypeMask))
	}
	for name := range n.Children {
		if name == "" || name == "." || name == ".." || len(name) > MaxName || strings.ContainsAny(name, "/\x00") {
			return bad(fmt.Sprintf("entry name %q", name))
		}
	}
	return nil
}

// names are the entries of a directory in the order of their bytes.
func (n *Node) names() []string {
	out := make([]string, 0, len(n.Children))
	for name := range n.Children {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}
