// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/flat"
)

// ErrLimit means that there is more to say of an image than a document holds.
var ErrLimit = errors.New("an SPDX document of it would be too large")

const (
	// maxDatabase bounds a package database; a larger one is Unread.
	maxDatabase = 64 << 20
	// maxCatalog bounds all that is collected of an image, in bytes that it takes
	// in the document, about; in memory it is less. A database whose packages exceed it
	// is Unread; other things are ErrLimit.
	maxCatalog = 30 << 20
	// maxELF bounds what is kept of the files that a program may load.
	maxELF = 8 << 20
)

// Catalog is what an image has.
type Catalog struct {
	Packages []Package
	// Links are the files that are linked dynamically, by path, and the paths
	// that each loads.
	Links map[string][]string
	// Missing lists what does not resolve.
	Missing []Missing
	// Unread lists the package databases that were seen and not read.
	Unread []string
}

// collector walks a tree.
type collector struct {
	Catalog
	linker *linker
	distro string
	paths  map[*erofs.Node]string
	exes   []string
	left   int // of maxCatalog
}

// Collect reads an image's tree. What it takes of memory is bounded, whatever
// is in the image.
func Collect(tree *flat.Tree) (Catalog, error) {
	c := &collector{linker: newLinker(tree), paths: map[*erofs.Node]string{}, left: maxCatalog}
	for _, file := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if c.distro == "" {
			c.distro = distro(read(tree.Lookup(file), 1<<16))
		}
	}
	if err := c.walk("", tree.Root()); err != nil {
		return Catalog{}, err
	}
	c.Links = map[string][]string{}
	for _, name := range c.exes {
		links, missing, ok := c.linker.follow(name, tree.Lookup(name), c.spend)
		if !ok {
			return Catalog{}, ErrLimit
		}
		c.Missing = append(c.Missing, missing...)
		for _, l := range links {
			from, to := c.paths[l.from], c.paths[l.to]
			if from == "" || to == "" || slices.Contains(c.Links[from], to) {
				continue
			}
			if !c.spend(linkCost) {
				return Catalog{}, ErrLimit
			}
			c.Links[from] = append(c.Links[from], to)
		}
	}
	slices.SortFunc(c.Packages, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Space, b.Space), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version),
			cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Epoch, b.Epoch))
	})
	c.Packages = slices.Compact(c.Packages)
	return c.Catalog, nil
}

// What things take of a document beside their names.
const (
	packageCost = 480
	linkCost    = 120
	objectCost  = 440
	unreadCost  = 190
	missingCost = 200
)

// spend counts what is kept; false is more than is allowed.
func (c *collector) spend(n int) bool {
	if n > c.left {
		return false
	}
	c.left -= n
	return true
}

func (c *collector) unread(name string) error {
	if !c.spend(unreadCost + len(name)) {
		return fmt.Errorf("%w: too many databases that cannot be read", ErrLimit)
	}
	c.Unread = append(c.Unread, name)
	return nil
}

func (c *collector) walk(dir string, n *erofs.Node) error {
	names := make([]string, 0, len(n.Children))
	for name := range n.Children {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		child := n.Children[name]
		var err error
		switch child.Mode & erofs.TypeMask {
		case erofs.TypeDir:
			err = c.walk(dir+"/"+name, child)
		case erofs.TypeRegular:
			err = c.file(dir, name, child)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// file looks at one file by its place, its name, and its first bytes.
func (c *collector) file(dir, name string, n *erofs.Node) error {
	if n.Size == 0 {
		return nil
	}
	if read := readerOf(dir, name); read != nil {
		if ok := n.Size <= maxDatabase && c.database(read, n, dir+"/"+name); !ok {
			if err := c.unread(dir + "/" + name); err != nil {
				return err
			}
		}
	} else if foreign(dir, name) {
		if err := c.unread(dir + "/" + name); err != nil {
			return err
		}
	}
	if n.Size < 52 || c.paths[n] != "" {
		return nil
	}
	magic := make([]byte, 4)
	if _, err := n.Data.ReadAt(magic, n.Off); err != nil || !bytes.Equal(magic, []byte("\x7fELF")) {
		return nil
	}
	o := c.linker.object(n)
	if o == nil {
		return nil
	}
	full := dir + "/" + name
	if c.linker.left < 0 || !c.spend(objectCost+2*len(full)) {
		return fmt.Errorf("%w: too many shared objects and programs", ErrLimit)
	}
	c.paths[n] = full
	if n.Mode&0o111 == 0 {
		return nil
	}
	if !c.database(goProgram, n, full) { // what says nothing of itself has no packages, and is read
		if err := c.unread(full); err != nil {
			return err
		}
	}
	if o.interp != "" {
		c.exes = append(c.exes, full)
	}
	return nil
}

// readerOf tells a database by its place and name; nil is none that is read.
func readerOf(dir, name string) reader {
	switch {
	case name == "status" && dir == "/var/lib/dpkg",
		dir == "/var/lib/dpkg/status.d" && !strings.HasSuffix(name, ".md5sums"):
		return dpkg
	case name == "installed" && (dir == "/lib/apk/db" || dir == "/usr/lib/apk/db"):
		return apk
	case name == "METADATA" && strings.HasSuffix(dir, ".dist-info"), name == "PKG-INFO" && strings.HasSuffix(dir, ".egg-info"),
		strings.HasSuffix(name, ".egg-info"):
		return pythonMetadata
	case name == "package.json" && strings.Contains(dir+"/", "/node_modules/"):
		return packageJSON
	case lockFiles[name] != nil:
		return lockFiles[name]
	case rpmFolders[dir] && name == "rpmdb.sqlite":
		return rpmSQLite
	}
	return nil
}

// database reads one. Of one that is not read to its end, or whose packages
// are too many, nothing is kept.
func (c *collector) database(read reader, n *erofs.Node, name string) bool {
	had, left := len(c.Packages), c.left
	full := false
	in := newInput(n.Data, n.Off, n.Size, name, c.distro)
	in.keep = func(p Package) {
		if full = full || !c.spend(p.cost()); !full {
			c.Packages = append(c.Packages, p)
		}
	}
	in.forget = func() {
		clear(c.Packages[had:])
		c.Packages, c.left, full = c.Packages[:had], left, false
	}
	if ok := read(in) && !in.cut; ok && !full {
		return true
	}
	in.forget()
	return false
}
