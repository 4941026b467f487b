// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"context"
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
	var hashes memory
	var roots [][]byte
	bundles := map[int64][]byte{}
	err = e.Range(ctx, 0, e.Len(), func(i int64, raw []byte) error {
		more, err := tlog.StoredHashes(i, raw, hashes)
		if err != nil {
			return fmt.Errorf("hash entry %d: %w", i, err)
		}
		hashes = append(hashes, more...)
		bundles[i/tiles.Width] = tiles.AppendEntry(bundles[i/tiles.Width], raw)
		if entry, err := Decode(raw); err == nil && entry.Type == TypeRoot {
			roots = append(roots, raw)
		}
		return nil
	})
	if err != nil {
		return 0, nil, err
	}
	if root, err := tlog.TreeHash(e.Len(), hashes); err != nil || root != e.v.checkpoint.Hash {
		return 0, nil, fmt.Errorf("%w: the entries give root %s, the checkpoint has %s (%v)", ErrForged, root, e.v.checkpoint.Hash, err)
	}
	want := func(path string) ([]byte, error) { return e.file(path, hashes, bundles, roots) }
	for _, s := range e.c.sources {
		paths, err := e.paths(s, len(roots))
		if err != nil {
			return compared, wrong, err
		}
		for i, path := range paths {
			e.c.cfg.Progress("files", int64(i)+1, int64(len(paths)))
			right, err := want(path)
			if err != nil {
				return compared, wrong, fmt.Errorf("compute %s: %w", path, err)
			}
			if right == nil {
				continue // wider than the checkpoint: written, not yet published
			}
			got, err := s.get(ctx, path, tiles.MaxBundle)
			compared++
			if err != nil {
				wrong = append(wrong, err)
			} else if !bytes.Equal(got, right) {
				wrong = append(wrong, fmt.Errorf("%w: %s/%s is not what the entries give", ErrForged, s, path))
			}
		}
	}
	return compared, wrong, nil
}

// paths lists the files to look at.
func (e Entries) paths(s source, roots int) ([]string, error) {
	var all []string
	if d, ok := s.(dirSource); ok {
		var err error
		if all, err = d.list(); err != nil {
			return nil, err
		}
	}
	for _, t := range tlog.NewTiles(tiles.Height, 0, e.Len()) {
		all = append(all, tiles.Path(t))
		if t.L == 0 {
			all = append(all, tiles.BundlePath(t.N, t.W))
		}
	}
	for v := range roots {
		all = append(all, rootPath(int64(v)+1))
	}
	slices.Sort(all)
	return slices.Compact(all), nil
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

// file computes one file of the log, nil if it goes beyond the checkpoint.
func (e Entries) file(path string, hashes memory, bundles map[int64][]byte, roots [][]byte) ([]byte, error) {
	if v, ok := strings.CutPrefix(path, "root/"); ok {
		n, err := strconv.Atoi(strings.TrimSuffix(v, ".json"))
		if err != nil {
			return nil, fmt.Errorf("root version: %w", err)
		}
		if n > len(roots) {
			return nil, nil
		}
		return roots[n-1], nil
	}
	rest := strings.TrimPrefix(path, "tile/")
	if bundle, ok := strings.CutPrefix(rest, "entries/"); ok {
		t, err := tlog.ParseTilePath("tile/8/0/" + bundle)
		if err != nil {
			return nil, err
		}
		if t.N*tiles.Width+int64(t.W) > e.Len() {
			return nil, nil
		}
		_, used, err := tiles.CutBundle(bundles[t.N], t.W)
		return bundles[t.N][:used], err
	}
	t, err := tlog.ParseTilePath("tile/8/" + rest)
	if err != nil {
		return nil, err
	}
	if (t.N*tiles.Width+int64(t.W))<<(tiles.Height*t.L) > e.Len() {
		return nil, nil
	}
	return tlog.ReadTileData(t, hashes)
}
