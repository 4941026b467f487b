// SPDX-License-Identifier: Apache-2.0

package flat

import (
	"archive/tar"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/zimage/erofs"
)

// TestTimeBombs: what takes a square of its length in time is refused, or takes no
// more than its length. Counted, not timed: the slowest of these took minutes.
func TestTimeBombs(t *testing.T) {
	const n = 3000
	each := func(make func(i int) []tar.Header) (out []tar.Header) {
		for i := range n {
			out = append(out, make(i)...)
		}
		return out
	}
	name := func(format string, args ...any) tar.Header { return h(reg, fmt.Sprintf(format, args...), "") }
	opaque := name("d/.wh..wh..opq")
	files := each(func(i int) []tar.Header { return []tar.Header{name("d/%d", i)} })
	// Each target leads to the next, by a way that is as long as it may be.
	var chain []tar.Header
	for i := range maxHops {
		chain = append(chain, h(sym, fmt.Sprint("l", i), fmt.Sprint("l", i+1)+strings.Repeat("/.", 2000)))
	}
	chain = append(chain, h(dir, fmt.Sprint("l", maxHops), ""))
	for _, c := range []struct {
		name   string
		layers [][]tar.Header
		want   error
	}{
		{"opaque markers, of files of the layer", [][]tar.Header{{name("x")}, slices.Concat(files, each(func(int) []tar.Header { return []tar.Header{opaque} }))}, nil},
		{"opaque markers between files", [][]tar.Header{files, each(func(i int) []tar.Header { return []tar.Header{name("d/new%d", i), opaque} })}, nil},
		{"whiteouts of a folder that stays", [][]tar.Header{{name("x")}, slices.Concat(files, each(func(int) []tar.Header { return []tar.Header{name(".wh.d")} }))}, nil},
		{"opaque markers in the lowest layer", [][]tar.Header{slices.Concat(files, each(func(int) []tar.Header { return []tar.Header{opaque} }))}, nil},
		{"device nodes that empty folders", [][]tar.Header{each(func(i int) []tar.Header { return []tar.Header{h(dir, fmt.Sprintf("d/d%d", i), "")} }),
			slices.Concat(files, each(func(i int) []tar.Header { return []tar.Header{name("d/d%d/f", i)} }),
				each(func(i int) []tar.Header { return []tar.Header{h(tar.TypeChar, fmt.Sprintf("d/d%d/f", i), ""), opaque} }))}, ErrLimit},
		{"symlinks", [][]tar.Header{chain, each(func(i int) []tar.Header { return []tar.Header{name("l0/%d", i)} })}, ErrLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			limits := DefaultLimits()
			limits.Entries = 20 * n
			tree, all := newTree(t, limits), 0
			for _, l := range c.layers {
				all += len(l)
				if err := tree.Layer(layer(t, l...)); err != nil {
					if !errors.Is(err, c.want) {
						t.Fatalf("got %v, want %v", err, c.want)
					}
					return
				}
			}
			if c.want != nil {
				t.Errorf("it is not refused; %d steps and %d visits are left", tree.steps, tree.visits)
			}
			if used := visitsPerEntry*limits.Entries - tree.visits; used > int64(all) {
				t.Errorf("%d visits for %d entries", used, all)
			}
		})
	}
	// The same for who asks, where the last part of each target leads on.
	for i := range maxHops {
		chain = append(chain, h(sym, fmt.Sprint("m", i), strings.Repeat("./", 2000)+fmt.Sprint("m", i+1)))
	}
	for _, name := range []string{"l0/x", "m0"} {
		tree := newTree(t, Limits{Entries: 20 * n, Names: 1 << 20})
		if err := tree.Layer(layer(t, chain...)); err != nil {
			t.Fatal(err)
		}
		for i := 0; tree.Err() == nil; i++ {
			if tree.Lookup(name); i > n {
				t.Fatalf("looking %s up is not bounded", name)
			}
		}
		if !errors.Is(tree.Err(), ErrLimit) {
			t.Error(tree.Err())
		}
	}
}

// TestRemovedLeaveNoRoom: of a folder that lost all but one of many entries, nobody
// walks over the many again.
func TestRemovedLeaveNoRoom(t *testing.T) {
	tree := newTree(t, DefaultLimits())
	d := newDir()
	tree.put(tree.root, "d", d)
	for i := range 1000 {
		tree.put(d, fmt.Sprint(i), &erofs.Node{})
	}
	for i := range 999 {
		tree.remove(d, fmt.Sprint(i))
		if tree.holes[d] > len(d.Children) {
			t.Fatalf("%d entries, and room for %d more", len(d.Children), tree.holes[d])
		}
	}
	if _, ok := d.Children["999"]; !ok || len(d.Children) != 1 {
		t.Errorf("left are %v", d.Children)
	}
	if tree.remove(d, "999"); len(d.Children) != 0 || len(tree.holes) != 0 {
		t.Errorf("left are %v, %v", d.Children, tree.holes)
	}
}

// plainly does what the layers say, path by path, and walks all of a folder at
// each whiteout.
type plainly struct {
	dirs  map[string]bool // each path that is there; true is a folder
	fresh map[string]bool
	first bool
}

func (p *plainly) below(dir string) (out []string) {
	for name := range p.dirs {
		if strings.HasPrefix(name, dir+"/") {
			out = append(out, name)
		}
	}
	return out
}

func (p *plainly) remove(name string) {
	for _, n := range append(p.below(name), name) {
		delete(p.dirs, n)
		delete(p.fresh, n)
	}
}

func (p *plainly) parents(name string) {
	if dir := path.Dir(name); dir != "/" && !p.dirs[dir] {
		p.parents(dir)
		p.dirs[dir], p.fresh[dir] = true, true
	}
}

func (p *plainly) hide(name string) {
	if _, ok := p.dirs[name]; !ok || p.first {
		return
	}
	p.empty(name)
	if !p.fresh[name] && len(p.below(name)) == 0 {
		p.remove(name)
	}
}

func (p *plainly) empty(dir string) {
	for _, n := range p.below(dir) {
		if strings.TrimSuffix(path.Dir(n), "/") == dir {
			p.hide(n)
		}
	}
}

// add is one entry; false is one that would be refused.
func (p *plainly) add(e tar.Header) bool {
	name := "/" + e.Name
	for up := path.Dir(name); up != "/"; up = path.Dir(up) {
		if isDir, ok := p.dirs[up]; ok && !isDir {
			return false
		}
	}
	parent, base := path.Split(name)
	switch hidden, white := strings.CutPrefix(base, ".wh."); {
	case hidden == ".wh..opq":
		if p.parents(name); !p.first {
			p.empty(strings.TrimSuffix(parent, "/"))
		}
	case white:
		p.hide(parent + hidden)
	case e.Typeflag == tar.TypeChar:
		p.parents(name)
		p.remove(name)
	default:
		p.parents(name)
		if !p.dirs[name] || e.Typeflag != dir {
			p.remove(name)
		}
		p.dirs[name], p.fresh[name] = e.Typeflag == dir, true
	}
	return true
}

// TestEveryOrder: in whatever order entries, markers and device nodes stand in
// layers, what is left is what is left when each marker walks all there is.
func TestEveryOrder(t *testing.T) {
	for seed := range uint64(4000) {
		r := rand.New(rand.NewPCG(seed, 0))
		tree, want := New(nil, Limits{Entries: 1000, Names: 10_000}), &plainly{dirs: map[string]bool{}}
		var said []string
		for range 2 + r.IntN(2) {
			want.first, want.fresh = len(want.dirs) == 0, map[string]bool{}
			var l []tar.Header
			for range 1 + r.IntN(14) {
				var parts []string
				for range 1 + r.IntN(3) {
					parts = append(parts, string('a'+rune(r.IntN(2))))
				}
				e := h([]byte{reg, dir, tar.TypeChar, reg, reg}[r.IntN(5)], "", "")
				last := &parts[len(parts)-1]
				switch r.IntN(5) {
				case 0:
					e.Typeflag, *last = reg, ".wh."+*last
				case 1:
					e.Typeflag, *last = reg, ".wh..wh..opq"
				}
				e.Name = strings.Join(parts, "/")
				if want.add(e) {
					l, said = append(l, e), append(said, fmt.Sprintf("%c %s", e.Typeflag, e.Name))
				}
			}
			said = append(said, "--")
			if err := tree.Layer(layer(t, l...)); err != nil {
				t.Fatalf("%q: %v", said, err)
			}
		}
		got := map[string]bool{}
		var walk func(name string, n *erofs.Node)
		walk = func(name string, n *erofs.Node) {
			for child, c := range n.Children {
				got[name+"/"+child] = c.IsDir()
				walk(name+"/"+child, c)
			}
		}
		walk("", tree.root)
		if !maps.Equal(got, want.dirs) {
			t.Fatalf("seed %d: %q\ngives %q\nwant  %q", seed, said, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want.dirs)))
		}
	}
}
