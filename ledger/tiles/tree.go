// SPDX-License-Identifier: Apache-2.0

// Package tiles is the wire format of the ledger: the static files of C2SP
// tlog-tiles, which any web server can carry and nobody has to trust.
//
//	checkpoint             signed note: origin, size, root hash; the log's and the cosigners' signatures
//	tile/<L>/<N>[.p/<W>]   256 hashes of level 8*L of the Merkle tree (RFC 6962); .p/<W>: only W yet
//	tile/entries/<N>[…]    bundle of the entries 256*N and after, each with its length in 16 bits
//	root/<version>.json    envelopes of the roots of trust
//	snapshot               the state as one file, for who starts late
//	consensus              where the engine stood then, for a validator that starts late
//	pruned                 there if old bundles are not: before which entry, and who has them
//
// A tile or bundle never changes; a wider one begins with the bytes of the
// narrower. That is why a reader that asks for width W can be served from any
// wider file (Dir.Read), and why the writer keeps only the widest.
package tiles

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	// Height is the height of a tile; Width the number of its hashes.
	Height = 8
	Width  = 1 << Height
	// MaxBundle bounds an entry bundle: 256 entries of 65535 bytes.
	MaxBundle = Width * (2 + 65535)
)

// Tree is the right edge of a Merkle tree: the roots of its complete
// subtrees, largest first. It is all that is needed to append and to know the
// root. The zero Tree is empty. Values share no memory that Append changes.
type Tree struct {
	size  int64
	edges []tlog.Hash
}

// Size is the number of leaves.
func (t Tree) Size() int64 { return t.size }

// Edges are the roots of the complete subtrees, largest first.
func (t Tree) Edges() []tlog.Hash { return t.edges[:len(t.edges):len(t.edges)] }

// NewTree is the tree of a size with these edges, if it can have so many.
func NewTree(size int64, edges []tlog.Hash) (Tree, bool) {
	return Tree{size, edges}, size >= 0 && bits.OnesCount64(uint64(size)) == len(edges)
}

// Append returns the tree with one more leaf.
func (t Tree) Append(leaf tlog.Hash) Tree {
	edges := make([]tlog.Hash, len(t.edges), len(t.edges)+1)
	copy(edges, t.edges)
	edges = append(edges, leaf)
	for n := t.size; n&1 == 1; n >>= 1 {
		last := len(edges) - 1
		edges = append(edges[:last-1], tlog.NodeHash(edges[last-1], edges[last]))
	}
	return Tree{t.size + 1, edges}
}

// Hash is the root of the tree.
func (t Tree) Hash() tlog.Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	h := t.edges[len(t.edges)-1]
	for i := len(t.edges) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.edges[i], h)
	}
	return h
}

// tileHash is the root of the complete subtree over a full tile's hashes.
func tileHash(hashes []tlog.Hash) tlog.Hash {
	t := Tree{}
	for _, h := range hashes {
		t = t.Append(h)
	}
	return t.Hash()
}

// Path is the place of a hash tile below the log's folder. tlog has the same
// with the height in front, from before the format was common.
func Path(t tlog.Tile) string {
	full := t.Path()
	return "tile/" + full[len("tile/8/"):]
}

// BundlePath is the place of bundle n with w entries.
func BundlePath(n int64, w int) string {
	return "tile/entries/" + (tlog.Tile{H: Height, L: 0, N: n, W: w}).Path()[len("tile/8/0/"):]
}

// AppendEntry adds an entry to a bundle.
func AppendEntry(bundle, entry []byte) []byte {
	bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(entry)))
	return append(bundle, entry...)
}

// CutBundle returns the first w entries of a bundle and how many bytes they
// take.
func CutBundle(b []byte, w int) (entries [][]byte, used int, err error) {
	for i := range w {
		if len(b)-used < 2 {
			return nil, 0, fmt.Errorf("bundle ends before entry %d of %d", i, w)
		}
		n := int(binary.BigEndian.Uint16(b[used:]))
		used += 2
		if len(b)-used < n {
			return nil, 0, fmt.Errorf("bundle ends inside entry %d of %d", i, w)
		}
		entries = append(entries, b[used:used+n:used+n])
		used += n
	}
	return entries, used, nil
}
