// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"encoding/binary"
	"sort"
)

const direntSize = 12

// dirent is one name in a directory. The inode is known by its place in the
// walk until every inode has its address.
type dirent struct {
	name  string
	inode *inode
}

// fileType is the d_type of a directory entry.
func fileType(mode uint32) byte {
	switch mode & TypeMask {
	case TypeRegular:
		return 1
	case TypeDir:
		return 2
	case TypeFIFO:
		return 5
	default:
		return 7 // symlink
	}
}

// dirBlocks cuts a directory's entries, "." and ".." among them, into runs
// that each fill at most one block. The kernel searches blocks, and entries
// within a block, by bisection: everything is sorted by name.
func dirBlocks(entries []dirent) [][]dirent {
	sort.Slice(entries, func(i, j int) bool { return entries[i].name < entries[j].name })
	var out [][]dirent
	start, used := 0, 0
	for i, e := range entries {
		need := direntSize + len(e.name)
		if used+need > BlockSize {
			out = append(out, entries[start:i])
			start, used = i, 0
		}
		used += need
	}
	return append(out, entries[start:])
}

// dirSize is the length of a directory of these runs: all but the last
// count as whole blocks.
func dirSize(runs [][]dirent) int64 {
	n := int64(len(runs)-1) * BlockSize
	for _, e := range runs[len(runs)-1] {
		n += direntSize + int64(len(e.name))
	}
	return n
}

// encodeRun writes one run: all entries, then all names. The offset of the
// first name also says how many entries there are.
func encodeRun(run []dirent) []byte {
	names := direntSize * len(run)
	out := make([]byte, 0, BlockSize)
	for _, e := range run {
		out = binary.LittleEndian.AppendUint64(out, e.inode.nid())
		out = binary.LittleEndian.AppendUint16(out, uint16(names))
		out = append(out, fileType(e.inode.node.Mode), 0)
		names += len(e.name)
	}
	for _, e := range run {
		out = append(out, e.name...)
	}
	return out
}
