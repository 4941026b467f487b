// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/zos-node/zos/ledger/tiles"
	"golang.org/x/mod/sumdb/tlog"
)

// memory is a Merkle tree with all its hashes.
type memory []tlog.Hash

func (m memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	all := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x >= int64(len(m)) {
			return nil, fmt.Errorf("hash %d is not in the tree", x)
		}
		all[i] = m[x]
	}
	return all, nil
}

// CheckFiles computes every file of the log again, from the entries, and
// compares it with what each ledger has: with the files that the checkpoint
// covers, and in a folder also with every other one that is there. It returns
// how many files it compared and what is wrong with which.
func (e Entries) CheckFiles(ctx context.Context) (compared int, wrong []error, err error) {
	f, err := e.Files()
	if err == nil {
		err = e.Range(ctx, 0, e.Len(), f.Add)
	}
	if err != nil {
		return 0, nil, err
	}
	return f.Check(ctx)
}

// Files computes the files of a log from its entries, of which it keeps no more
// than one bundle.
type Files struct {
	entries Entries
	folders [][]string // what each source has, if it can be listed
	widths  map[int64][]int
	hashes  memory
	roots   [][]byte
	bundle  []byte                         // the one that is being filled
	bundles map[string][tlog.HashSize]byte // SHA-256 of each that will be compared
}

// Files begins. Give it every entry, in order.
func (e Entries) Files() (*Files, error) {
	f := &Files{entries: e, widths: map[int64][]int{}, bundles: map[string][tlog.HashSize]byte{}}
	for _, s := range e.c.sources {
		var has []string
		if d, ok := s.(dirSource); ok {
			var err error
			if has, err = d.list(); err != nil {
				return nil, err
			}
		}
		f.folders = append(f.folders, has)
		for _, path := range has {
			if bundle, ok := strings.CutPrefix(path, "tile/entries/"); ok {
				t, err := tlog.ParseTilePath("tile/8/0/" + bundle)
				if err != nil {
					return nil, fmt.Errorf("compute %s: %w", path, err)
				}
				f.widths[t.N] = append(f.widths[t.N], t.W)
			}
		}
	}
	for _, t := range tlog.NewTiles(tiles.Height, 0, e.Len()) {
		if t.L == 0 {
			f.widths[t.N] = append(f.widths[t.N], t.W)
		}
	}
	return f, nil
}

// Add takes the next entry.
func (f *Files) Add(i int64, raw []byte) error {
	more, err := tlog.StoredHashes(i, raw, f.hashes)
	if err != nil {
		return fmt.Errorf("hash entry %d: %w", i, err)
	}
	f.hashes = append(f.hashes, more...)
	f.bundle = tiles.AppendEntry(f.bundle, raw)
	n, w := i/tiles.Width, int(i%tiles.Width)+1
	if slices.Contains(f.widths[n], w) {
		f.bundles[tiles.BundlePath(n, w)] = sha256.Sum256(f.bundle)
	}
	if w == tiles.Width {
		f.bundle = nil
	}
	if entry, err := Decode(raw); err == nil && entry.Type == TypeRoot {
		f.roots = append(f.roots, bytes.Clone(raw))
	}
	return nil
}

// Check compares what each ledger has.
func (f *Files) Check(ctx context.Context) (compared int, wrong []error, err error) {
	e := f.entries
	if root, err := tlog.TreeHash(e.Len(), f.hashes); err != nil || root != e.v.checkpoint.Hash {
		return 0, nil, fmt.Errorf("%w: the entries give root %s, the checkpoint has %s (%v)", ErrForged, root, e.v.checkpoint.Hash, err)
	}
	for i, s := range e.c.sources {
		paths := f.paths(f.folders[i])
		for i, path := range paths {
			e.c.cfg.Progress("files", int64(i)+1, int64(len(paths)))
			right, beyond, err := f.digest(path)
			if err != nil {
				return compared, wrong, fmt.Errorf("compute %s: %w", path, err)
			}
			if beyond {
				continue // wider than the checkpoint: written, not yet published
			}
			got, err := s.get(ctx, path, tiles.MaxBundle)
			compared++
			if err != nil {
				wrong = append(wrong, err)
			} else if sha256.Sum256(got) != right {
				wrong = append(wrong, fmt.Errorf("%w: %s/%s is not what the entries give", ErrForged, s, path))
			}
		}
	}
	return compared, wrong, nil
}

// paths lists the files to look at.
func (f *Files) paths(has []string) []string {
	all := slices.Clone(has)
	for _, t := range tlog.NewTiles(tiles.Height, 0, f.entries.Len()) {
		all = append(all, tiles.Path(t))
		if t.L == 0 {
			all = append(all, tiles.BundlePath(t.N, t.W))
		}
	}
	for v := range f.roots {
		all = append(all, rootPath(int64(v)+1))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// list finds every file of the log but the checkpoint, which its signatures
// cover.
func (d dirSource) list() ([]string, error) {
	var all []string
	for _, part := range []string{"tile", "root"} {
		err := filepath.WalkDir(filepath.Join(string(d.dir), part), func(path string, f os.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // it is missed when it is to be read
			} else if err != nil || f.IsDir() {
				return err
			}
			rel, err := filepath.Rel(string(d.dir), path)
			if err != nil {
				return err
			}
			if rel = filepath.ToSlash(rel); tiles.ValidPath(rel) {
				all = append(all, rel)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", d, err)
		}
	}
	return all, nil
}

// digest is the SHA-256 of what a file of the log has to have; beyond says that it
// goes beyond the checkpoint.
func (f *Files) digest(path string) (sum [tlog.HashSize]byte, beyond bool, err error) {
	if v, ok := strings.CutPrefix(path, "root/"); ok {
		n, err := strconv.Atoi(strings.TrimSuffix(v, ".json"))
		if err != nil {
			return sum, false, fmt.Errorf("root version: %w", err)
		}
		if n > len(f.roots) {
			return sum, true, nil
		}
		return sha256.Sum256(f.roots[n-1]), false, nil
	}
	rest := strings.TrimPrefix(path, "tile/")
	if strings.HasPrefix(rest, "entries/") {
		sum, ok := f.bundles[path]
		return sum, !ok, nil
	}
	t, err := tlog.ParseTilePath("tile/8/" + rest)
	if err != nil {
		return sum, false, err
	}
	if (t.N*tiles.Width+int64(t.W))<<(tiles.Height*t.L) > f.entries.Len() {
		return sum, true, nil
	}
	b, err := tlog.ReadTileData(t, f.hashes)
	return sha256.Sum256(b), false, err
}
