// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"errors"
	"slices"

	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/flat"
)

// Map says where everything in an image comes from and where it lies: layers,
// their files, and the files' chunks.
type Map struct {
	Layers []MapLayer `json:"layers"`
	Files  []MapFile  `json:"files"` // that have content, in the order of their paths
}

// MapLayer is a layer, and what is left of it in the image.
type MapLayer struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"` // as it travels
	Files  int    `json:"files"`
	Bytes  int64  `json:"bytes"` // of the contents of these files
}

// MapFile is a file. A file with several names stands once, under the first.
type MapFile struct {
	Path  string   `json:"path"`
	Links []string `json:"links,omitempty"` // its other names
	Layer int      `json:"layer"`           // whose content it has, counted from 0
	Size  int64    `json:"size"`
	// Chunks are indexes into the manifest's list. Small files share chunks
	// with others.
	Chunks []int `json:"chunks"`
}

// MapImage reads the layers of an OCI image again and maps the image that was
// made of them. Its manifest is m; what does not lead to the same layout is
// ErrMismatch.
func MapImage(ctx context.Context, src Source, m Manifest, temp string, progress func(done, total int64)) (out Map, err error) {
	from, man, cfg, err := openImage(ctx, src, m.OCI.Platform)
	if err != nil {
		return Map{}, err
	}
	spool, err := unnamed(temp)
	if err != nil {
		return Map{}, err
	}
	defer func() { err = errors.Join(err, spool.Close()) }()
	tree, files, err := flatten(ctx, src, man, cfg, spool, &reporter{report: progress})
	if err != nil {
		return Map{}, err
	}
	defer func() { err = errors.Join(err, files.Close()) }() // what files are in was read already
	plan, err := erofs.Plan(tree.Root())
	if err != nil {
		return Map{}, err
	}
	if layout := plan.Layout(); from != m.OCI || layout.Size != m.DataSize || !sameCut(cut(layout, m.DiskSize), m.Chunks) {
		return Map{}, ErrMismatch
	}
	for _, d := range man.Layers {
		out.Layers = append(out.Layers, MapLayer{Digest: d.Digest, Size: d.Size})
	}
	b := mapper{Map: &out, plan: plan, tree: tree, chunks: m.Chunks, seen: map[*erofs.Node]int{}}
	b.walk("", tree.Root())
	return out, nil
}

func sameCut(a, b []Chunk) bool {
	return slices.EqualFunc(a, b, func(a, b Chunk) bool { return a.Off == b.Off && a.Size == b.Size })
}

type mapper struct {
	*Map
	plan   *erofs.Image
	tree   *flat.Tree
	chunks []Chunk
	seen   map[*erofs.Node]int // 1 and the index of the file
}

func (b *mapper) walk(dir string, n *erofs.Node) {
	names := make([]string, 0, len(n.Children))
	for name := range n.Children {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		child := n.Children[name]
		switch {
		case child.IsDir():
			b.walk(dir+"/"+name, child)
		case child.Mode&erofs.TypeMask != erofs.TypeRegular || child.Size == 0:
		case b.seen[child] > 0:
			f := &b.Files[b.seen[child]-1]
			f.Links = append(f.Links, dir+"/"+name)
		default:
			layer := b.tree.LayerOf(child)
			b.Layers[layer].Files++
			b.Layers[layer].Bytes += child.Size
			f := MapFile{Path: dir + "/" + name, Layer: layer, Size: child.Size}
			for _, e := range b.plan.Extents(child) {
				f.Chunks = append(f.Chunks, b.covering(e)...)
			}
			b.Files = append(b.Files, f)
			b.seen[child] = len(b.Files)
		}
	}
}

// covering gives the chunks that an extent lies in.
func (b *mapper) covering(e erofs.Extent) []int {
	first, _ := slices.BinarySearchFunc(b.chunks, e.Off, func(c Chunk, off int64) int {
		if c.Off+c.Size <= off {
			return -1
		}
		return 1
	})
	var out []int
	for i := first; i < len(b.chunks) && b.chunks[i].Off < e.Off+e.Size; i++ {
		out = append(out, i)
	}
	return out
}

// Shared says how many chunks and bytes of an image another one has too.
func Shared(of, with Manifest) (chunks int, bytes int64) {
	have := map[string]bool{}
	for _, c := range with.Chunks {
		have[c.ID] = true
	}
	for _, c := range of.Chunks {
		if have[c.ID] {
			chunks++
			bytes += c.Size
		}
	}
	return chunks, bytes
}

// Unique says how many different chunks an image has, and their bytes.
func Unique(m Manifest) (chunks int, bytes int64) {
	seen := map[string]bool{}
	for _, c := range m.Chunks {
		if !seen[c.ID] {
			seen[c.ID] = true
			chunks++
			bytes += c.Size
		}
	}
	return chunks, bytes
}
