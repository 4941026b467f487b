// SPDX-License-Identifier: Apache-2.0

package fat

import (
	"bytes"
	"fmt"
)

const maxDepth = 8

// Repair makes the volume whole again after a power cut: tables that differ
// become the same, clusters that nobody has are free, chains end where their
// files end, parts of long names that belong to nothing go, and of two names
// for one file the later one goes. mine says which files may be taken away when
// their contents are broken: those that can be written again. Damage of any
// other file is an error, and nothing is changed.
//
// It returns what it did, in words; nothing when the volume was whole.
func (v *Volume) Repair(mine func(path string) bool) ([]string, error) {
	c := check{Volume: v, owner: map[uint32]string{}, mine: mine}
	c.claim("a folder", []uint32{v.root})
	if err := c.walk(v.root, "", 0); err != nil {
		return nil, err
	}
	tables, err := c.tables()
	if err != nil {
		return nil, err
	}
	for _, fix := range tables {
		c.did = append(c.did, "a table that differed")
		if err := fix(); err != nil {
			return c.did, err
		}
	}
	// Names first: what they leave is free afterwards.
	for _, fix := range c.fixes {
		if err := fix(); err != nil {
			return c.did, err
		}
	}
	if len(c.ends) > 0 {
		if err := v.set(c.ends); err != nil {
			return c.did, err
		}
	}
	var lost []uint32
	for n := uint32(firstCluster); v.valid(n); n++ {
		if to := v.next(n); to != 0 && to != bad && c.owner[n] == "" {
			lost = append(lost, n)
		}
	}
	if len(lost) > 0 {
		c.did = append(c.did, fmt.Sprintf("%d clusters that nobody had", len(lost)))
	}
	if err := v.release(lost); err != nil {
		return c.did, err
	}
	return c.did, v.count()
}

// check is one look at the whole volume.
type check struct {
	*Volume
	mine  func(string) bool
	owner map[uint32]string // cluster to who has it
	fixes []func() error
	ends  map[uint32]uint32
	did   []string
}

// claim notes who has clusters; one that somebody has already is not taken.
func (c *check) claim(who string, clusters []uint32) (taken bool) {
	for _, n := range clusters {
		if c.owner[n] != "" {
			return false
		}
	}
	for _, n := range clusters {
		c.owner[n] = who
	}
	return true
}

func (c *check) walk(start uint32, path string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: folders nest too deep", ErrFormat)
	}
	f, err := c.folder(start)
	if err != nil {
		return err
	}
	if !c.claim("folder "+path, f.clusters[1:]) {
		return fmt.Errorf("%w: folder %s has clusters of another", ErrFormat, path)
	}
	all, orphans := f.entries()
	if len(orphans) > 0 {
		for _, i := range orphans {
			f.slot(i)[0] = deleted
		}
		c.did = append(c.did, "parts of a long name in "+path+"/")
		c.fixes = append(c.fixes, func() error { return c.store(f, orphans...) })
	}
	for i := range all {
		e := &all[i]
		p := path + e.name
		if e.attr&attrFolder != 0 {
			if !c.valid(e.start) || !c.claim("folder "+p, []uint32{e.start}) {
				return fmt.Errorf("%w: folder %s begins nowhere", ErrFormat, p)
			}
			if err := c.walk(e.start, p+"/", depth+1); err != nil {
				return err
			}
			continue
		}
		if err := c.file(f, e, p); err != nil {
			return err
		}
	}
	return nil
}

// file holds a file against its chain.
func (c *check) file(f *folder, e *entry, path string) error {
	need := c.need(e.size)
	clusters, whole := []uint32(nil), true
	if e.start != 0 {
		clusters, whole = c.chain(e.start)
	}
	if len(clusters) >= need && c.claim(path, clusters[:min(need, len(clusters))]) {
		if need == 0 && e.start == 0 || need > 0 && need == len(clusters) && whole {
			return nil
		}
		// Longer than the file: the end moves, and what is behind it belongs to
		// nobody.
		c.did = append(c.did, "the chain of "+path+" was too long")
		if need == 0 {
			f.point(e, 0, 0)
			c.fixes = append(c.fixes, func() error { return c.store(f, e.last) })
			return nil
		}
		if c.ends == nil {
			c.ends = map[uint32]uint32{}
		}
		c.ends[clusters[need-1]] = end
		return nil
	}
	if !c.mine(path) {
		return fmt.Errorf("%w: %s is broken: its clusters are too few, or those of another file", ErrFormat, path)
	}
	c.did = append(c.did, path+" was another name, or not whole")
	entries := f.strike(e)
	c.fixes = append(c.fixes, func() error { return c.store(f, entries...) })
	return nil
}

// tables finds sectors in which the second table differs from the first, which
// is always written first.
func (c *check) tables() (fixes []func() error, err error) {
	size := c.perFAT * c.sector
	for n := int64(1); n < c.fats; n++ {
		b := make([]byte, size)
		if err := c.read(b, c.fatAt(n)); err != nil {
			return nil, err
		}
		for s := range c.perFAT {
			want := c.tableSector(s)
			if s*c.sector/4 >= int64(len(c.table)) {
				break // behind the last cluster
			}
			if have := b[s*c.sector : (s+1)*c.sector]; !bytes.Equal(have, want) {
				fixes = append(fixes, func() error { return c.write(want, c.fatAt(n)+s*c.sector) })
			}
		}
	}
	return fixes, nil
}
