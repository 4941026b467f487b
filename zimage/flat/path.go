// SPDX-License-Identifier: Apache-2.0

package flat

import (
	"archive/tar"
	"fmt"
	"strings"

	"github.com/zos-node/zos/zimage/erofs"
)

const (
	maxPath  = 4096
	maxHops  = 40 // symlinks followed for one path, as in Linux
	maxDepth = 512
)

// split cuts a name into its parts; none is the root.
func split(name string) ([]string, error) {
	if len(name) > maxPath || strings.ContainsRune(name, 0) {
		return nil, fmt.Errorf("%w: name is longer than %d bytes or has a NUL", ErrLayer, maxPath)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return nil, fmt.Errorf("%w: name has \"..\"", ErrLayer)
		case len(part) > erofs.MaxName:
			return nil, fmt.Errorf("%w: part of a name is longer than %d bytes", ErrLayer, erofs.MaxName)
		}
		parts = append(parts, part)
	}
	if len(parts) > maxDepth {
		return nil, fmt.Errorf("%w: deeper than %d directories", ErrLayer, maxDepth)
	}
	return parts, nil
}

// dir finds a directory and makes what is missing on the way.
func (t *Tree) dir(parts []string) (*erofs.Node, error) { return t.find(parts, true) }

// find walks from the root and follows symlinks the way a process does whose
// root directory is the image: ".." at the top stays at the top. Without
// create, nil means that there is no such directory.
func (t *Tree) find(parts []string, create bool) (*erofs.Node, error) {
	at, hops, depth := t.root, 0, 0
	rest := append([]string(nil), parts...)
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = t.parent[at]
			depth = max(depth-1, 0)
			continue
		}
		next := at.Children[part]
		if next == nil {
			if !create {
				return nil, nil
			}
			if len(part) > erofs.MaxName {
				return nil, fmt.Errorf("%w: symlink leads to a name longer than %d bytes", ErrLayer, erofs.MaxName)
			}
			if t.left.Entries -= 2; t.left.Entries < 0 {
				return nil, fmt.Errorf("%w: number of entries", ErrLimit)
			}
			next = newDir()
			t.put(at, part, next)
		}
		switch {
		case next.IsDir():
			if depth++; depth > maxDepth {
				return nil, fmt.Errorf("%w: deeper than %d directories", ErrLayer, maxDepth)
			}
			at = next
		case next.Mode&erofs.TypeMask == erofs.TypeSymlink:
			if hops++; hops > maxHops {
				return nil, fmt.Errorf("%w: more than %d symlinks in %q", ErrLayer, maxHops, short(strings.Join(parts, "/")))
			}
			if strings.HasPrefix(next.Target, "/") {
				at, depth = t.root, 0
			}
			rest = append(strings.Split(next.Target, "/"), rest...)
			if t.steps -= int64(len(rest)); t.steps < 0 {
				return nil, fmt.Errorf("%w: symlinks on the way to files", ErrLimit)
			}
		default:
			if !create {
				return nil, nil
			}
			return nil, fmt.Errorf("%w: %q on the way is not a directory", ErrLayer, part)
		}
	}
	return at, nil
}

// Lookup finds what a path names, following symlinks; nil when there is nothing.
func (t *Tree) Lookup(path string) *erofs.Node {
	parts := strings.Split(path, "/")
	for range maxHops {
		if t.steps -= int64(len(parts)); t.steps < 0 {
			return nil // Err tells it
		}
		dir, err := t.find(parts[:len(parts)-1], false)
		if err != nil || dir == nil {
			return nil
		}
		name := parts[len(parts)-1]
		switch name {
		case "", ".":
			return dir
		case "..":
			return t.parent[dir]
		}
		n := dir.Children[name]
		if n == nil || n.Mode&erofs.TypeMask != erofs.TypeSymlink {
			return n
		}
		parent := parts[:len(parts)-1]
		if strings.HasPrefix(n.Target, "/") {
			parent = nil
		}
		parts = append(append([]string{}, parent...), strings.Split(n.Target, "/")...)
	}
	return nil
}

// link gives a file one more name.
func (t *Tree) link(h *tar.Header, dirs []string, name string) error {
	to, err := split(h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", short(h.Linkname), err)
	}
	if len(to) == 0 {
		return fmt.Errorf("%w: hard link to the root", ErrLayer)
	}
	from, err := t.find(to[:len(to)-1], false)
	if err != nil {
		return err
	}
	var n *erofs.Node
	if from != nil {
		last := to[len(to)-1]
		if i, ok := t.devices[entry{from, last}]; ok {
			d := t.dropped[i]
			d.Name = h.Name
			return t.dropDevice(d, dirs, name)
		}
		n = from.Children[last]
	}
	if n == nil || n.IsDir() {
		return fmt.Errorf("%w: hard link to %q, which is no file in the image", ErrLayer, short(h.Linkname))
	}
	dir, err := t.dir(dirs)
	if err != nil {
		return err
	}
	t.put(dir, name, n)
	return nil
}
