// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"io"
	"path"
	"slices"
	"strings"

	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/flat"
)

// Missing is a shared object, or an interpreter, that an executable needs and
// the image does not have.
type Missing struct {
	Executable string `json:"executable"`
	By         string `json:"by"` // the file that names it: the executable, or one of its libraries
	Needs      string `json:"needs"`
}

// linker resolves names as ld.so does, inside an image.
type linker struct {
	tree    *flat.Tree
	dirs    map[byte][]string // of the system, by class
	objects map[*erofs.Node]*object
	left    int // of maxELF
	configs int // files that say where to search, still to be read
}

// maxConfigs and maxDirs bound what ld.so.conf may lead to, also in circles.
const maxConfigs, maxDirs = 256, 1024

// triplets are the names of Debian's library folders.
var triplets = map[uint16]string{3: "i386-linux-gnu", 40: "arm-linux-gnueabihf", 62: "x86_64-linux-gnu", 183: "aarch64-linux-gnu"}

func newLinker(tree *flat.Tree) *linker {
	return &linker{tree: tree, objects: map[*erofs.Node]*object{}, left: maxELF, configs: maxConfigs}
}

// object reads a file once; nil is none that can be loaded.
func (l *linker) object(n *erofs.Node) *object {
	if o, known := l.objects[n]; known {
		return o
	}
	var found *object
	if n.Mode&erofs.TypeMask == erofs.TypeRegular && n.Size > 0 {
		if o, ok := readELF(io.NewSectionReader(n.Data, n.Off, n.Size), n.Size); ok {
			if l.left -= o.size(); l.left >= 0 { // the collector refuses the image
				found = &o
			}
		}
	}
	l.objects[n] = found
	return found
}

// link is one file that another one loads.
type link struct{ from, to *erofs.Node }

// follow resolves everything that an executable needs. It gives the links
// that resolve and what is missing, each in the order of the search; ok is
// false when spend did not allow as much.
func (l *linker) follow(name string, exe *erofs.Node, spend func(int) bool) (links []link, missing []Missing, ok bool) {
	top := l.object(exe)
	if top == nil {
		return nil, nil, false
	}
	if top.interp != "" {
		if to := l.tree.Lookup(top.interp); to != nil && l.fits(to, top) {
			links = append(links, link{exe, to})
		} else {
			if !spend(missingCost + len(top.interp) + 2*len(name)) {
				return nil, nil, false
			}
			missing = append(missing, Missing{name, name, top.interp})
		}
	}
	type step struct {
		name string
		node *erofs.Node
	}
	seen := map[*erofs.Node]bool{exe: true}
	for queue := []step{{name, exe}}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		o := l.object(at.node)
		for _, needs := range o.needed {
			to, where := l.find(needs, at.name, o, name, top)
			if to == nil {
				if !spend(missingCost + len(needs) + len(at.name) + len(name)) {
					return nil, nil, false
				}
				missing = append(missing, Missing{name, at.name, needs})
				continue
			}
			links = append(links, link{at.node, to})
			if !seen[to] {
				seen[to] = true
				queue = append(queue, step{where, to})
			}
		}
	}
	return links, missing, l.left >= 0
}

// fits says whether a file can be loaded beside another.
func (l *linker) fits(n *erofs.Node, beside *object) bool {
	o := l.object(n)
	return o != nil && o.class == beside.class && o.machine == beside.machine
}

// find looks for a shared object that file by needs, for the executable top.
func (l *linker) find(needs, by string, o *object, exe string, top *object) (*erofs.Node, string) {
	if strings.Contains(needs, "/") {
		if n := l.tree.Lookup(needs); n != nil && l.fits(n, top) {
			return n, needs
		}
		return nil, ""
	}
	var dirs []string
	if o.runpath == "" {
		dirs = append(dirs, searchPath(o.rpath, by)...)
		if top.runpath == "" {
			dirs = append(dirs, searchPath(top.rpath, exe)...)
		}
	}
	dirs = append(dirs, searchPath(o.runpath, by)...)
	dirs = append(dirs, l.system(top)...)
	for _, dir := range dirs {
		where := path.Join(dir, needs)
		if n := l.tree.Lookup(where); n != nil && l.fits(n, top) {
			return n, where
		}
	}
	return nil, ""
}

// searchPath cuts an RPATH or RUNPATH and fills in where the file is.
func searchPath(list, file string) []string {
	if list == "" {
		return nil
	}
	var out []string
	for dir := range strings.SplitSeq(list, ":") {
		for _, origin := range []string{"$ORIGIN", "${ORIGIN}"} {
			dir = strings.ReplaceAll(dir, origin, path.Dir(file))
		}
		if path.IsAbs(dir) {
			out = append(out, path.Clean(dir))
		}
	}
	return out
}

// system gives the folders that are searched for every program: those of
// ld.so.conf, musl's path file, and those that are built in.
func (l *linker) system(o *object) []string {
	if dirs, known := l.dirs[o.class]; known {
		return dirs
	}
	dirs := l.configured("/etc/ld.so.conf", 0)
	for _, arch := range []string{"x86_64", "aarch64"} {
		if b := read(l.tree.Lookup("/etc/ld-musl-"+arch+".path"), 1<<16); b != nil {
			dirs = append(dirs, strings.FieldsFunc(string(b), func(r rune) bool { return r == ':' || r == '\n' })...)
		}
	}
	if t := triplets[o.machine]; t != "" {
		dirs = append(dirs, "/lib/"+t, "/usr/lib/"+t)
	}
	if o.class == 2 {
		dirs = append(dirs, "/lib64", "/usr/lib64")
	}
	dirs = append(dirs, "/lib", "/usr/local/lib", "/usr/lib")
	dirs = dirs[:min(len(dirs), maxDirs)]
	if l.dirs == nil {
		l.dirs = map[byte][]string{}
	}
	l.dirs[o.class] = dirs
	return dirs
}

// configured reads ld.so.conf and what it includes.
func (l *linker) configured(file string, depth int) []string {
	var out []string
	if l.configs--; l.configs < 0 {
		return nil
	}
	for line := range strings.Lines(string(read(l.tree.Lookup(file), 1<<16))) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] != "include":
			if path.IsAbs(words[0]) {
				out = append(out, path.Clean(words[0]))
			}
		case depth < 4:
			for _, pattern := range words[1:] {
				if !path.IsAbs(pattern) {
					pattern = path.Join(path.Dir(file), pattern)
				}
				for _, name := range l.glob(pattern) {
					out = append(out, l.configured(name, depth+1)...)
				}
			}
		}
	}
	return out
}

// glob matches the last part of a pattern.
func (l *linker) glob(pattern string) []string {
	dir, last := path.Split(pattern)
	n := l.tree.Lookup(dir)
	if n == nil || !n.IsDir() {
		return nil
	}
	var out []string
	for name := range n.Children {
		if ok, err := path.Match(last, name); err == nil && ok {
			out = append(out, dir+name)
		}
	}
	slices.Sort(out)
	return out
}

// read gives the content of a regular file of at most limit bytes, else nil.
func read(n *erofs.Node, limit int64) []byte {
	if n == nil || n.Mode&erofs.TypeMask != erofs.TypeRegular || n.Size == 0 || n.Size > limit {
		return nil
	}
	b := make([]byte, n.Size)
	if got, err := n.Data.ReadAt(b, n.Off); err != nil && got < len(b) {
		return nil
	}
	return b
}
