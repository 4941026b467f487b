// SPDX-License-Identifier: Apache-2.0

package flat

import (
	"fmt"
	"maps"
	"strings"

	"github.com/zos-node/zos/zimage/erofs"
)

// Work that no length of a layer bounds, for each entry that is allowed: parts of
// paths that symlinks lead to, and entries that are looked at for whiteouts. It is
// seconds at most, and far more than an image takes that somebody uses.
const (
	stepsPerEntry  = 128
	visitsPerEntry = 16
)

// whiteout hides what lower layers put under a name.
func (t *Tree) whiteout(dirs []string, hidden string) error {
	if hidden == ".wh..opq" {
		dir, err := t.dir(dirs)
		if err != nil {
			return err
		}
		return t.removeLower(dir)
	}
	if strings.HasPrefix(hidden, ".wh.") {
		return nil
	}
	if hidden == "" || hidden == "." || hidden == ".." {
		return fmt.Errorf("%w: whiteout of %q", ErrLayer, hidden)
	}
	dir, err := t.find(dirs, false)
	if err != nil || dir == nil {
		return err
	}
	return t.hide(dir, hidden)
}

// removeLower empties a directory of what lower layers put there.
//
// It walks a directory once for a layer: what comes into it later is of the layer
// itself, so that a second marker finds nothing, unless drop has taken away what a
// directory of a lower layer was kept for.
func (t *Tree) removeLower(dir *erofs.Node) error {
	if t.fresh == nil || t.clean[dir] {
		return nil
	}
	t.clean[dir] = true
	if t.visits -= int64(len(dir.Children)); t.visits < 0 {
		return fmt.Errorf("%w: whiteouts, and device nodes in the place of files", ErrLimit)
	}
	for name := range dir.Children {
		if err := t.hide(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// hide removes an entry of a lower layer. One of this layer stays, but what
// lower layers put below it goes: a whiteout may stand behind its own layer's
// content.
func (t *Tree) hide(dir *erofs.Node, name string) error {
	n := dir.Children[name]
	if n == nil || t.fresh == nil {
		return nil
	}
	if n.IsDir() {
		if err := t.removeLower(n); err != nil {
			return err
		}
	}
	if !t.fresh[entry{dir, name}] && len(n.Children) == 0 {
		t.remove(dir, name)
	}
	return nil
}

// drop removes an entry of any layer.
func (t *Tree) drop(dir *erofs.Node, name string) {
	if dir.Children[name] == nil {
		return
	}
	t.remove(dir, name)
	if len(dir.Children) > 0 {
		return
	}
	for ; t.clean[dir]; dir = t.parent[dir] {
		delete(t.clean, dir)
	}
}

// remove takes an entry out of a directory. A map keeps the room of what was
// deleted, and who walks it passes over all of that: so it is made anew from time
// to time.
func (t *Tree) remove(dir *erofs.Node, name string) {
	delete(dir.Children, name)
	if t.holes[dir]++; t.holes[dir] <= len(dir.Children) {
		return
	}
	delete(t.holes, dir)
	var left map[string]*erofs.Node
	if len(dir.Children) > 0 {
		left = make(map[string]*erofs.Node, len(dir.Children))
		maps.Copy(left, dir.Children)
	}
	dir.Children = left
}
