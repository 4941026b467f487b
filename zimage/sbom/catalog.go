// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"bytes"
	"cmp"
	"io"
	"slices"
	"strings"

	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/flat"
)

// maxDatabase bounds a package database; a larger one is Unread.
const maxDatabase = 64 << 20

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
	seen   map[*erofs.Node]bool
	exes   []string
}

// Collect reads an image's tree.
func Collect(tree *flat.Tree) Catalog {
	c := &collector{linker: newLinker(tree), paths: map[*erofs.Node]string{}, seen: map[*erofs.Node]bool{}}
	for _, file := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if c.distro == "" {
			c.distro = distro(read(tree.Lookup(file), 1<<16))
		}
	}
	c.walk("", tree.Root())
	c.Links = map[string][]string{}
	for _, name := range c.exes {
		links, missing := c.linker.follow(name, tree.Lookup(name))
		c.Missing = append(c.Missing, missing...)
		for _, l := range links {
			from, to := c.paths[l.from], c.paths[l.to]
			if from != "" && to != "" && !slices.Contains(c.Links[from], to) {
				c.Links[from] = append(c.Links[from], to)
			}
		}
	}
	slices.SortFunc(c.Packages, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Space, b.Space), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version),
			cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Epoch, b.Epoch))
	})
	c.Packages = slices.Compact(c.Packages)
	return c.Catalog
}

func (c *collector) walk(dir string, n *erofs.Node) {
	names := make([]string, 0, len(n.Children))
	for name := range n.Children {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		child := n.Children[name]
		switch child.Mode & erofs.TypeMask {
		case erofs.TypeDir:
			c.walk(dir+"/"+name, child)
		case erofs.TypeRegular:
			c.file(dir, name, child)
		}
	}
}

// file looks at one file by its place, its name, and its first bytes.
func (c *collector) file(dir, name string, n *erofs.Node) {
	full := func() string { return dir + "/" + name }
	with := func(read reader) {
		b := content(n)
		found, ok := []Package(nil), false
		if b != nil {
			found, ok = read(b, full())
		}
		if !ok {
			c.Unread = append(c.Unread, full())
		}
		c.Packages = append(c.Packages, found...)
	}
	system := func(read func([]byte, string, string) ([]Package, bool)) {
		with(func(b []byte, file string) ([]Package, bool) { return read(b, file, c.distro) })
	}
	if n.Size > 0 {
		switch {
		case name == "status" && dir == "/var/lib/dpkg",
			dir == "/var/lib/dpkg/status.d" && !strings.HasSuffix(name, ".md5sums"):
			system(dpkg)
		case name == "installed" && (dir == "/lib/apk/db" || dir == "/usr/lib/apk/db"):
			system(apk)
		case name == "METADATA" && strings.HasSuffix(dir, ".dist-info"), name == "PKG-INFO" && strings.HasSuffix(dir, ".egg-info"),
			strings.HasSuffix(name, ".egg-info"):
			with(pythonMetadata)
		case name == "package.json" && strings.Contains(dir+"/", "/node_modules/"):
			with(packageJSON)
		case lockFiles[name] != nil:
			with(lockFiles[name])
		case rpmFolders[dir] && name == "rpmdb.sqlite":
			system(rpmSQLite)
		case foreign(dir, name):
			c.Unread = append(c.Unread, full())
		}
	}
	if n.Size < 52 || c.seen[n] {
		return
	}
	c.seen[n] = true
	magic := make([]byte, 4)
	if _, err := n.Data.ReadAt(magic, n.Off); err != nil || !bytes.Equal(magic, []byte("\x7fELF")) {
		return
	}
	o := c.linker.object(n)
	if o == nil {
		return
	}
	c.paths[n] = full()
	if n.Mode&0o111 == 0 {
		return
	}
	c.Packages = append(c.Packages, goProgram(io.NewSectionReader(n.Data, n.Off, n.Size), full())...)
	if o.interp != "" {
		c.exes = append(c.exes, full())
	}
}

// content reads a database; nil is one that is too large.
func content(n *erofs.Node) []byte { return read(n, maxDatabase) }
