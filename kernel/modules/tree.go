// SPDX-License-Identifier: Apache-2.0

package modules

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"path"
	"sort"
	"strings"
)

// ErrMissing says that a kernel lacks a module that a set needs.
var ErrMissing = errors.New("kernel has no module")

// Tree is the modules of one kernel, still compressed.
type Tree struct {
	Release string            // as in uname -r
	files   map[string]string // normal name → path below lib/modules/RELEASE
	data    map[string][]byte // by path
	builtin map[string]bool
	opened  map[string]Module
}

// Module is one uncompressed module.
type Module struct {
	Info
	Path  string // below lib/modules/RELEASE, ends in .ko
	Data  []byte
	plain bool   // Packaged leaves it as it is
	file  string // Path as packaged, with or without .xz
	raw   []byte // as packaged
	Load  bool   // loaded at boot, before the agent starts
	Late  bool   // loaded at boot, while the agent starts
	Wait  bool   // when a device asks for it, not before Late
}

// Packaged is the module as its package has it, compressed (Path then ends in
// .ko.xz): a third of the size, and the bytes that the package's list of files
// names. The kernel unpacks it (CONFIG_MODULE_DECOMPRESS). What a boot waits for
// stays uncompressed (Want.Plain).
func (m Module) Packaged() Module {
	if m.plain {
		return m
	}
	m.Path, m.Data = m.file, m.raw
	return m
}

// NewTree starts a tree; Add fills it.
func NewTree(release string) *Tree {
	return &Tree{Release: release, files: map[string]string{}, data: map[string][]byte{}, builtin: map[string]bool{}, opened: map[string]Module{}}
}

// Add takes one file of lib/modules/RELEASE; others than modules and the list
// of built-in ones are ignored.
func (t *Tree) Add(name string, content []byte) {
	switch {
	case strings.HasSuffix(name, ".ko") || strings.HasSuffix(name, ".ko.xz"):
		t.files[nameOf(name)] = name
		t.data[name] = content
	case name == "modules.builtin":
		s := bufio.NewScanner(bytes.NewReader(content))
		for s.Scan() {
			t.builtin[nameOf(s.Text())] = true
		}
	}
}

func nameOf(file string) string {
	base := path.Base(file)
	base = strings.TrimSuffix(base, ".xz")
	return Norm(strings.TrimSuffix(base, ".ko"))
}

// Builtin says that the kernel has the module inside.
func (t *Tree) Builtin(name string) bool { return t.builtin[Norm(name)] }

// BuiltinNames are all modules that the kernel has inside, sorted.
func (t *Tree) BuiltinNames() []string {
	all := make([]string, 0, len(t.builtin))
	for n := range t.builtin {
		all = append(all, n)
	}
	sort.Strings(all)
	return all
}

// Has says that the kernel has the module, inside or as a file.
func (t *Tree) Has(name string) bool {
	_, ok := t.files[Norm(name)]
	return ok || t.builtin[Norm(name)]
}

// open uncompresses and parses one module.
func (t *Tree) open(name string) (Module, error) {
	name = Norm(name)
	if m, ok := t.opened[name]; ok {
		return m, nil
	}
	file, ok := t.files[name]
	if !ok {
		return Module{}, fmt.Errorf("%w %s", ErrMissing, name)
	}
	ko, err := Decompress(file, t.data[file])
	if err != nil {
		return Module{}, err
	}
	info, err := ReadInfo(ko)
	if err != nil {
		return Module{}, fmt.Errorf("%s: %w", file, err)
	}
	if info.Name == "" {
		info.Name = name
	}
	m := Module{Info: info, Path: strings.TrimSuffix(file, ".xz"), Data: ko, file: file, raw: t.data[file]}
	t.opened[name] = m
	return m, nil
}

// Choose returns the modules of the sets with all that they depend on, each
// after what it needs. Built-in ones fall out; absent optional ones do too.
func (t *Tree) Choose(sets ...Set) ([]Module, error) {
	c := chooser{tree: t, at: map[string]int{}}
	for _, set := range sets {
		for _, w := range set.Wants {
			if err := c.add(w.Name, w.Optional, w.Load, nil); err != nil {
				return nil, fmt.Errorf("module set %s, for %s: %w", set.Name, w.Why, err)
			}
			if i, ok := c.at[Norm(w.Name)]; ok {
				c.out[i].Late = c.out[i].Late || w.Late
				c.out[i].Wait = c.out[i].Wait || w.Wait
			}
		}
	}
	for _, set := range sets {
		for _, w := range set.Wants {
			if w.Plain {
				c.plain(Norm(w.Name))
			}
		}
	}
	return c.out, nil
}

// plain marks a module and what it depends on.
func (c *chooser) plain(name string) {
	i, ok := c.at[name]
	if !ok || c.out[i].plain {
		return
	}
	c.out[i].plain = true
	for _, d := range c.out[i].Depends {
		c.plain(Norm(d))
	}
}

type chooser struct {
	tree *Tree
	out  []Module
	at   map[string]int // name → index in out
}

func (c *chooser) add(name string, optional, load bool, path []string) error {
	name = Norm(name)
	if i, ok := c.at[name]; ok {
		c.out[i].Load = c.out[i].Load || load
		return nil
	}
	if c.tree.builtin[name] {
		return nil
	}
	if _, ok := c.tree.files[name]; !ok && optional {
		return nil
	}
	for _, p := range path {
		if p == name {
			return fmt.Errorf("modules depend on each other: %s", strings.Join(append(path, name), " → "))
		}
	}
	m, err := c.tree.open(name)
	if err != nil {
		return err
	}
	path = append(path[:len(path):len(path)], name)
	// Dependencies come with whoever asks for them, so they need no Load of their own.
	for _, d := range m.SoftPre {
		if err := c.add(d, true, false, path); err != nil {
			return err
		}
	}
	for _, d := range m.Depends {
		if err := c.add(d, false, false, path); err != nil {
			return err
		}
	}
	if _, ok := c.at[name]; ok {
		return nil
	}
	m.Load = load
	c.at[name] = len(c.out)
	c.out = append(c.out, m)
	return nil
}
