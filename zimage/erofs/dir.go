// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"encoding/binary"
	"slices"
	"strings"
)

const direntSize = 12

// dirent is one name in a directory.
type dirent struct {
	name string
	node *Node
}

// runs gives a directory's entries as they are stored, "." and ".." among
// them.
func (n *Node) runs(parent *Node) [][]dirent {
	entries := append(make([]dirent, 0, len(n.Children)+2), dirent{".", n}, dirent{"..", parent})
	for name, child := range n.Children {
		entries = append(entries, dirent{name, child})
	}
	return dirBlocks(entries)
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
	slices.SortFunc(entries, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
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
		out = binary.LittleEndian.AppendUint64(out, uint64(e.node.slot))
		out = binary.LittleEndian.AppendUint16(out, uint16(names))
		out = append(out, fileType(e.node.Mode), 0)
		names += len(e.name)
	}
	for _, e := range run {
		out = append(out, e.name...)
	}
	return out
}
