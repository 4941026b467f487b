// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Resume continues a log of which the right edge is known and its files are in
// the folder, without its older entries. What it reads is held against the
// tree.
func (w *Writer) Resume(t Tree) error {
	size, edges := t.Size(), t.Edges()
	var levels [][]tlog.Hash
	for level := 0; size>>(Height*level) > 0; level++ {
		n := size >> (Height * level)
		var hashes []tlog.Hash
		if width := int(n % Width); width > 0 {
			path := Path(tlog.Tile{H: Height, L: level, N: n >> Height, W: width})
			b, err := w.dir.Read(path)
			if err != nil {
				return fmt.Errorf("right edge of the tree: %w", err)
			}
			for i := range width {
				hashes = append(hashes, tlog.Hash(b[i*tlog.HashSize:]))
			}
			var part Tree
			for _, h := range hashes {
				part = part.Append(h)
			}
			own := len(edges) - len(part.edges)
			if own < 0 || !slices.Equal(edges[own:], part.edges) {
				return fmt.Errorf("%s is not what the tree of size %d has there", path, size)
			}
			edges = edges[:own]
		}
		levels = append(levels, hashes)
	}
	if len(edges) > 0 {
		return fmt.Errorf("the tree of size %d has more edges than its tiles", size)
	}
	var bundle []byte
	if width := int(size % Width); width > 0 {
		path := BundlePath(size/Width, width)
		b, err := w.dir.Read(path)
		if err != nil {
			return fmt.Errorf("last entries: %w", err)
		}
		entries, used, err := CutBundle(b, width)
		if err != nil || used != len(b) {
			return fmt.Errorf("%s has %d bytes, %d belong to it: %w", path, len(b), used, err)
		}
		for i, e := range entries {
			if tlog.RecordHash(e) != levels[0][i] {
				return fmt.Errorf("%s: entry %d is not the one that the tree has there", path, i)
			}
		}
		bundle = b
	}
	w.tree, w.levels, w.bundle = t, levels, bundle
	w.shown.from(size)
	return nil
}

// Put writes a file of the log: temporary file, fsync, rename, fsync of the
// folder.
func (w *Writer) Put(path string, data []byte) error {
	if !ValidPath(path) {
		return fmt.Errorf("%q is no file of a log", path)
	}
	return w.write([]file{{path, data}})
}

// Prune removes the bundles of entries before an index, but for the first one
// and the one that has the entry itself; hashes stay. It returns how many it
// removed. What is gone already is passed over, so that one that was
// interrupted is done again.
func (d Dir) Prune(before int64) (removed int, err error) {
	for n := before/Width - 1; n > 0; n-- {
		path := filepath.Join(string(d), filepath.FromSlash(BundlePath(n, Width)))
		left, err := os.ReadDir(path + ".p")
		if err == nil {
			for _, f := range left {
				if err := os.Remove(filepath.Join(path+".p", f.Name())); err != nil {
					return removed, fmt.Errorf("prune: %w", err)
				}
			}
			if err := os.Remove(path + ".p"); err != nil {
				return removed, fmt.Errorf("prune: %w", err)
			}
		}
		if err := os.Remove(path); os.IsNotExist(err) {
			continue
		} else if err != nil {
			return removed, fmt.Errorf("prune: %w", err)
		}
		removed++
	}
	return removed, nil
}
