// SPDX-License-Identifier: Apache-2.0

package flat

import (
	"archive/tar"
	"fmt"
	"strings"
)

// Dropped is something of a layer that is not in the image: a device node, or
// all extended attributes of one name.
type Dropped struct {
	Name  string `json:"name"` // as the layer spells it; of an attribute, the first file that has it
	Kind  string `json:"kind"` // "char", "block" or "attribute"
	Major int64  `json:"major"`
	Minor int64  `json:"minor"`
	// Attribute is the key in the layer, such as "SCHILY.xattr.system.nfs4_acl";
	// Files is how many tar entries have it.
	Attribute string `json:"attribute,omitempty"`
	Files     int64  `json:"files,omitempty"`
}

// Dropped lists what stood in the layers and is not in the image, in the order
// in which it was seen first.
func (t *Tree) Dropped() []Dropped { return t.dropped }

// What a place in the list takes of memory, in bytes of names. An image has a few
// dozen. The list is written as JSON in one piece, where a byte may become six, and
// a buffer that grows holds all of it twice.
const (
	dropCost  = 512
	dropBytes = 12
)

// drops adds to the list.
func (t *Tree) drops(d Dropped) error {
	if t.left.Names -= int64(dropCost + dropBytes*(len(d.Name)+len(d.Attribute))); t.left.Names < 0 {
		return fmt.Errorf("%w: device nodes and extended attributes that it has no place for", ErrLimit)
	}
	d.Name = strings.Clone(d.Name) // does not hold the header that it was cut from
	t.dropped = append(t.dropped, d)
	return nil
}

// device drops a device node, and what stood in its place.
func (t *Tree) device(h *tar.Header, dirs []string, name string) error {
	d := Dropped{Name: h.Name, Kind: "char", Major: h.Devmajor, Minor: h.Devminor}
	if h.Typeflag == tar.TypeBlock {
		d.Kind = "block"
	}
	return t.dropDevice(d, dirs, name)
}

// dropDevice drops one name of a device node. Further names may follow, as hard
// links: they go the same way.
func (t *Tree) dropDevice(d Dropped, dirs []string, name string) error {
	if err := t.drops(d); err != nil {
		return err
	}
	dir, err := t.dir(dirs)
	if err != nil {
		return err
	}
	t.drop(dir, name)
	if t.devices == nil {
		t.devices = map[entry]int{}
	}
	t.devices[entry{dir, strings.Clone(name)}] = len(t.dropped) - 1
	return nil
}

// xattrKey is how a PAX record of an extended attribute begins.
const xattrKey = "SCHILY.xattr."

// lose lists an attribute that is not kept.
func (t *Tree) lose(key string, h *tar.Header, kept map[string]string) error {
	name, ok := strings.CutPrefix(key, xattrKey)
	switch {
	case ok:
	case strings.HasPrefix(key, "SCHILY.acl."), strings.HasPrefix(key, "RHT."): // an ACL as text; a label of SELinux
		name = key
	default:
		if name, ok = strings.CutPrefix(key, "LIBARCHIVE.xattr."); !ok {
			return nil
		}
	}
	if _, ok := kept[name]; ok {
		return nil
	}
	if i, ok := t.lost[key]; ok {
		t.dropped[i].Files++
		return nil
	}
	if t.lost == nil {
		t.lost = map[string]int{}
	}
	key = strings.Clone(key)
	t.lost[key] = len(t.dropped)
	return t.drops(Dropped{Name: h.Name, Kind: "attribute", Attribute: key, Files: 1})
}
