// SPDX-License-Identifier: Apache-2.0

package flat

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/zos-node/zos/zimage/erofs"
)

// Errors that Layer wraps.
var (
	ErrLayer = errors.New("layer refused")
	ErrLimit = errors.New("image is larger than allowed")
)

// Limits bound what an image may make of this machine.
type Limits struct {
	Entries int64 // tar entries in all layers; one that is a directory counts twice
	Bytes   int64 // file contents in all layers, also of files that a later layer removes
	Names   int64 // bytes of names, link targets and attributes, and of the list of what is dropped, which stay in memory
}

// DefaultLimits are above what images have in practice, and low enough that
// none needs more than 256 MiB of memory.
func DefaultLimits() Limits {
	return Limits{Entries: 1 << 19, Bytes: 32 << 30, Names: 64 << 20}
}

// Spool is where file contents wait; an *os.File is one.
type Spool interface {
	io.Writer
	io.ReaderAt
}

// Tree is an image being merged. Add the layers from the lowest up.
type Tree struct {
	root    *erofs.Node
	parent  map[*erofs.Node]*erofs.Node // of directories
	fresh   map[entry]bool              // what the layer being added has put there
	clean   map[*erofs.Node]bool        // of which it has hidden what there was to hide, and of all below
	holes   map[*erofs.Node]int         // entries removed from a directory whose map is as large as before
	steps   int64                       // that may still be gone because of symlinks
	visits  int64                       // of entries that a whiteout may hide
	spool   Spool
	out     *bufio.Writer // to the spool
	read    *window       // from the spool
	windows []*window     // all that contents are read through
	spent   int64         // bytes of file contents
	bound   int64         // of spent
	spooled int64         // bytes in the spool
	ends    []int64       // spooled, at the end of each layer
	lies    *placed       // the layer being added, if its contents stay where they are
	buf     []byte
	left    Limits
	dropped []Dropped
	lost    map[string]int // attributes that are not in the image, into dropped
	devices map[entry]int  // where device nodes would be, into dropped
}

// entry is one name in one directory. Layers replace and hide names, not
// inodes: a file may have one name from below and one of its own layer.
type entry struct {
	dir  *erofs.Node
	name string
}

// put gives a name in a directory a new meaning.
func (t *Tree) put(dir *erofs.Node, name string, n *erofs.Node) {
	name = strings.Clone(name) // does not hold the path that it was cut from
	if t.fresh != nil {
		t.fresh[entry{dir, name}] = true
	}
	if dir.Children == nil {
		dir.Children = map[string]*erofs.Node{}
	}
	dir.Children[name] = n
	delete(t.devices, entry{dir, name})
	if n.IsDir() {
		t.parent[n] = dir
	}
}

// New starts an empty image. The spool must be empty and is the tree's alone.
func New(spool Spool, limits Limits) *Tree {
	root, read := newDir(), &window{of: spool}
	return &Tree{
		root: root, spool: spool, out: bufio.NewWriterSize(struct{ io.Writer }{spool}, 1<<20), read: read, windows: []*window{read}, bound: limits.Bytes,
		left: limits, buf: make([]byte, 256<<10),
		parent: map[*erofs.Node]*erofs.Node{root: root}, holes: map[*erofs.Node]int{},
		steps: stepsPerEntry * limits.Entries, visits: visitsPerEntry * limits.Entries,
	}
}

// newDir is an empty directory; put makes its map.
func newDir() *erofs.Node { return &erofs.Node{Mode: erofs.TypeDir | 0o755} }

// Root is the merged tree.
func (t *Tree) Root() *erofs.Node { return t.root }

// LayerOf tells which layer, counted from 0, brought the content of a file
// that is not empty.
func (t *Tree) LayerOf(f *erofs.Node) int {
	if w, ok := f.Data.(*window); ok && w != t.read {
		return w.layer
	}
	i, _ := slices.BinarySearch(t.ends, f.Off+1)
	return i
}

// Bound allows so many bytes of file contents in all layers, from now on, if
// that is less than the limits do. It is for who knows what the layers weigh:
// a sparse file is any number of bytes from a few.
func (t *Tree) Bound(bytes int64) { t.bound = bytes }

// Layer adds one uncompressed layer. After an error the tree is of no use.
func (t *Tree) Layer(r io.Reader) error {
	t.read.b = nil
	return t.layer(r)
}

// LayerIn adds one uncompressed layer of so many bytes that lies in a file.
// Only its headers are read, and sparse files; all other contents stay in the
// file, which must not change until the tree has been written.
func (t *Tree) LayerIn(file io.ReaderAt, size int64) error {
	t.lies = &placed{headers: window{of: file}, contents: &window{of: file, layer: len(t.ends)}, size: size}
	t.windows = append(t.windows, t.lies.contents)
	defer func() { t.lies = nil }()
	return t.layer(t.lies)
}

func (t *Tree) layer(r io.Reader) error {
	if len(t.root.Children) > 0 {
		t.fresh, t.clean = map[entry]bool{}, map[*erofs.Node]bool{}
		defer func() { t.fresh, t.clean = nil, nil }()
	}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			if err := t.out.Flush(); err != nil {
				return fmt.Errorf("write spool: %w", err)
			}
			t.ends = append(t.ends, t.spooled)
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // of a name; split looks at all of them
			if here := t.fault(); here != nil {
				return here
			}
			return fmt.Errorf("%w: read tar: %w", ErrLayer, err)
		}
		if err := t.add(h, tr); err != nil {
			return fmt.Errorf("entry %q: %w", short(h.Name), err)
		}
	}
}

func (t *Tree) add(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	t.left.Entries--
	if h.Typeflag == tar.TypeDir {
		t.left.Entries--
	}
	t.left.Names -= int64(len(h.Name) + len(h.Linkname))
	if t.left.Entries < 0 || t.left.Names < 0 {
		return fmt.Errorf("%w: number of entries, or length of names", ErrLimit)
	}
	parts, err := split(h.Name)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the root is not a directory", ErrLayer)
		}
		return t.attributes(t.root, h)
	}
	dirs, name := parts[:len(parts)-1], parts[len(parts)-1]
	if hidden, ok := strings.CutPrefix(name, ".wh."); ok {
		return t.whiteout(dirs, hidden)
	}
	switch h.Typeflag {
	case tar.TypeChar, tar.TypeBlock:
		return t.device(h, dirs, name)
	case tar.TypeLink:
		return t.link(h, dirs, name)
	}
	dir, err := t.dir(dirs)
	if err != nil {
		return err
	}
	old := dir.Children[name]
	if h.Typeflag == tar.TypeDir && old != nil && old.IsDir() {
		if t.fresh != nil {
			t.fresh[entry{dir, name}] = true
		}
		return t.attributes(old, h)
	}
	n := &erofs.Node{}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		n.Mode = erofs.TypeRegular
		if err := t.store(n, h, r); err != nil {
			return err
		}
	case tar.TypeDir:
		n = newDir()
	case tar.TypeSymlink:
		n.Mode, n.Target = erofs.TypeSymlink, strings.Clone(h.Linkname)
		if n.Target == "" || len(n.Target) > erofs.MaxTarget || strings.ContainsRune(n.Target, 0) {
			return fmt.Errorf("%w: symlink target %q", ErrLayer, short(n.Target))
		}
	case tar.TypeFifo:
		n.Mode = erofs.TypeFIFO
	default:
		return fmt.Errorf("%w: tar entry of type %q", ErrLayer, h.Typeflag)
	}
	if err := t.attributes(n, h); err != nil {
		return err
	}
	t.put(dir, name, n)
	return nil
}

// attributes sets owner, mode, time and extended attributes.
func (t *Tree) attributes(n *erofs.Node, h *tar.Header) error {
	if uid, gid := int64(h.Uid), int64(h.Gid); uid < 0 || gid < 0 || uid > math.MaxUint32-1 || gid > math.MaxUint32-1 {
		return fmt.Errorf("%w: owner %d:%d", ErrLayer, h.Uid, h.Gid)
	}
	n.UID, n.GID = uint32(h.Uid), uint32(h.Gid)
	n.Mode = n.Mode&erofs.TypeMask | uint32(h.Mode)&0o7777
	n.MTime, n.Nanos = h.ModTime.Unix(), uint32(h.ModTime.Nanosecond())
	kept := map[string]string{}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrKey)
		if !ok {
			continue
		}
		if t.left.Names -= int64(len(key) + len(value)); t.left.Names < 0 {
			return fmt.Errorf("%w: extended attributes", ErrLimit)
		}
		if erofs.HoldsXattr(name, value) {
			kept[name] = value
		}
	}
	var err error
	if n.Xattrs, err = erofs.EncodeXattrs(kept); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if err := t.lose(key, h, kept); err != nil {
			return err
		}
	}
	return nil
}

func short(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
