// SPDX-License-Identifier: Apache-2.0

// Package powercut is a file system for tests that forgets, at a power cut,
// what was not fsynced. It lives in memory and is mounted by FUSE (Mount), so
// that a whole server with all its databases runs on it as it is.
//
// Every file has two contents, and every folder two lists of names: what
// programs see, and what is on the disk. A write or a rename changes the first
// only. An fsync brings one file to the disk, and names as Order says. Disk
// counts each fsync, also those that an O_SYNC write implies. At the one that
// was asked for, before it has any effect, the power goes: whoever writes is
// ended, and Restart shows what the disk has.
//
// What is pending at a cut may still have reached a real disk, whole or in
// part, for a kernel writes back when it likes. Loss says how much of it does.
package powercut

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Order is what an fsync makes durable beside the bytes of the file.
type Order int

const (
	// Ordered is ext4 and XFS: one journal, so every change of a name that came
	// before is durable with any fsync.
	Ordered Order = iota
	// Loose is what POSIX promises, with what btrfs adds: the names of the very
	// file that is fsynced and of the folders above it; other renames and
	// removals only when their folder is fsynced.
	Loose
)

// Loss is what becomes of that which was not fsynced.
type Loss int

const (
	// Dropped: nothing of it is there.
	Dropped Loss = iota
	// Torn: of each file some of the writes are there, in order, the last of
	// them up to a byte that chance picks; of the names some changes, in order.
	Torn
	// Zeros: as Torn, but where a file grew there are zeros, as when the size was
	// written and the bytes were not.
	Zeros
)

func (l Loss) String() string { return [...]string{"dropped", "torn", "zeros"}[l] }

// node is a file or a folder.
type node struct {
	ino    uint64
	folder bool
	mode   uint32

	data   []byte           // what programs see
	kids   map[string]*node //
	saved  []byte           // what is on the disk
	names  map[string]*node //
	writes []write          // since the last fsync
}

// write is bytes that a program wrote at an offset, or a new length.
type write struct {
	off  int64
	data []byte
	cut  bool // the file ends at off
	seq  int  // changes of names that there were before it
}

// apply makes the content of a file after one write.
func (w write) apply(to []byte) []byte {
	end := w.off + int64(len(w.data))
	if w.cut && end < int64(len(to)) {
		return to[:end]
	}
	if grow := end - int64(len(to)); grow > 0 {
		to = append(to, make([]byte, grow)...)
	}
	copy(to[w.off:], w.data)
	return to
}

// link is one name in a folder: for a node, or for nothing.
type link struct {
	in   *node
	name string
	to   *node
}

// change is links that change at once.
type change []link

func (c change) apply() {
	for _, l := range c {
		if l.to == nil {
			delete(l.in.names, l.name)
		} else {
			l.in.names[l.name] = l.to
		}
	}
}

// Cut says what a power cut took.
type Cut struct {
	At     int    `json:"at"`     // which fsync since the start
	What   string `json:"what"`   // what was about to be fsynced
	Writes int    `json:"writes"` // writes that were not on the disk, in all files
	Bytes  int    `json:"bytes"`  // bytes of those
	Names  int    `json:"names"`  // changes of names that were not on the disk
}

// Disk is a file system. Its methods may be called from anywhere.
type Disk struct {
	Order Order
	Lies  bool // every fsync says that it was done, and was not: tests of the tests

	mu      sync.Mutex
	next    uint64
	root    *node
	pending []change // not on the disk yet, oldest first
	changes int      // of names, in all
	syncs   int
	at      int
	kill    func()
	cut     *Cut
	gone    chan struct{} // closed when the one who wrote has been told to end
}

// New makes a disk that has what a folder has, durably.
func New(from string) (*Disk, error) {
	d := &Disk{}
	root, err := d.read(from)
	if err != nil {
		return nil, fmt.Errorf("fill the disk: %w", err)
	}
	d.root = root
	return d, nil
}

func (d *Disk) read(path string) (*node, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	n := d.node(info.IsDir(), uint32(info.Mode().Perm()))
	if !info.IsDir() {
		n.saved, err = os.ReadFile(path)
		n.data = slices.Clone(n.saved)
		return n, err
	}
	list, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	for _, f := range list {
		kid, err := d.read(filepath.Join(path, f.Name()))
		if err != nil {
			return nil, err
		}
		n.kids[f.Name()], n.names[f.Name()] = kid, kid
	}
	return n, nil
}

func (d *Disk) node(folder bool, mode uint32) *node {
	d.next++
	n := &node{ino: d.next, folder: folder, mode: mode}
	if folder {
		n.kids, n.names = map[string]*node{}, map[string]*node{}
	}
	return n
}

// change notes a change of names that programs see.
func (d *Disk) change(c change) {
	d.changes++
	d.pending = append(d.pending, c)
}

// write changes a file, as programs see it.
func (d *Disk) write(n *node, w write) {
	w.seq = d.changes
	n.data = w.apply(n.data)
	n.writes = append(n.writes, w)
}

// CutAt has the power go at the n-th fsync from now on, 0 for never. kill has
// to end whoever writes before it returns.
func (d *Disk) CutAt(n int, kill func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs, d.at, d.kill, d.cut, d.gone = 0, n, kill, nil, make(chan struct{})
}

// Syncs is how many fsyncs there were since CutAt.
func (d *Disk) Syncs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

// enter locks the disk for one operation, unless the power is gone: then it
// waits until whoever asks has been told to end.
func (d *Disk) enter() syscall.Errno {
	d.mu.Lock()
	if d.cut == nil {
		return 0
	}
	d.mu.Unlock()
	<-d.gone
	return syscall.EIO
}

// sync brings a file or a folder to the disk, or ends everything.
func (d *Disk) sync(n *node) syscall.Errno {
	if errno := d.enter(); errno != 0 {
		return errno
	}
	defer d.mu.Unlock()
	d.syncs++
	if d.syncs == d.at {
		d.cut = &Cut{At: d.syncs, What: d.path(n), Names: len(d.pending)}
		walk(d.root, "", func(_ string, n *node) bool {
			d.cut.Writes += len(n.writes)
			for _, w := range n.writes {
				d.cut.Bytes += len(w.data)
			}
			return true
		})
		d.kill()
		close(d.gone)
		return syscall.EIO
	}
	if d.Lies {
		return 0
	}
	for _, w := range n.writes {
		n.saved = w.apply(n.saved)
	}
	n.writes = nil
	d.commit(n)
	return 0
}

// commit makes changes of names durable, as an fsync of n does.
func (d *Disk) commit(n *node) {
	if d.Order == Ordered {
		for _, c := range d.pending {
			c.apply()
		}
		d.pending = nil
		return
	}
	// A file is of no use without the folders above it: their names come too.
	wanted := map[*node]bool{n: true}
	for again := true; again; {
		again = false
		for _, c := range d.pending {
			for _, l := range c {
				if wanted[l.to] && !wanted[l.in] && d.fresh(l.in) {
					wanted[l.in], again = true, true
				}
			}
		}
	}
	var rest []change
	for _, c := range d.pending {
		if !slices.ContainsFunc(c, func(l link) bool { return l.to != nil && wanted[l.to] || l.in == n }) {
			rest = append(rest, c)
			continue
		}
		c.apply()
		// What was said of the same name before is over.
		for i := range rest {
			rest[i] = slices.DeleteFunc(slices.Clone(rest[i]), func(old link) bool {
				return slices.ContainsFunc(c, func(l link) bool { return l.in == old.in && l.name == old.name })
			})
		}
	}
	d.pending = rest
}

// fresh says whether a folder has a name that is not on the disk yet.
func (d *Disk) fresh(n *node) bool {
	return slices.ContainsFunc(d.pending, func(c change) bool {
		return slices.ContainsFunc(c, func(l link) bool { return l.to == n })
	})
}

// walk visits every node that programs see, until visit says no.
func walk(n *node, path string, visit func(string, *node) bool) bool {
	if !visit(path, n) {
		return false
	}
	for name, kid := range n.kids {
		if !walk(kid, path+"/"+name, visit) {
			return false
		}
	}
	return true
}

func (d *Disk) path(n *node) string {
	found := "a file without a name"
	walk(d.root, "", func(path string, other *node) bool {
		if other == n {
			found = path
		}
		return other != n
	})
	return found
}

// Restart is the power coming back: programs see what is on the disk. It says
// what the cut took, nil if there was none.
func (d *Disk) Restart(l Loss, rng *rand.Rand) *Cut {
	d.mu.Lock()
	defer d.mu.Unlock()
	cut := d.cut
	if cut != nil {
		names := 0
		if l != Dropped {
			names = rng.IntN(len(d.pending) + 1)
		}
		for _, c := range d.pending[:names] {
			c.apply()
		}
		until := d.changes - len(d.pending) + names
		if d.Order == Loose {
			until = d.changes
		}
		d.root = d.after(d.root, l, until, rng)
		d.pending = nil
	}
	d.cut = nil
	return cut
}

// Read is a file as programs see it, nil if there is none; path is slash-separated.
func (d *Disk) Read(path string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.root
	for name := range strings.SplitSeq(path, "/") {
		if n = n.kids[name]; n == nil {
			return nil
		}
	}
	return slices.Clone(n.data)
}

// after copies what is on the disk. Where names have an order, a write comes with
// the names that changed before it: the new length of its file goes through the
// same journal. So nothing is kept that was written after so many changes.
func (d *Disk) after(n *node, l Loss, until int, rng *rand.Rand) *node {
	c := d.node(n.folder, n.mode)
	if n.folder {
		for name, kid := range n.names {
			k := d.after(kid, l, until, rng)
			c.kids[name], c.names[name] = k, k
		}
		return c
	}
	c.saved = slices.Clone(n.saved)
	if l != Dropped && len(n.writes) > 0 {
		had := len(c.saved)
		kept := n.writes[:rng.IntN(len(n.writes)+1)]
		if late := slices.IndexFunc(kept, func(w write) bool { return w.seq > until }); late >= 0 {
			kept = kept[:late]
		}
		for i, w := range kept {
			if i == len(kept)-1 && len(w.data) > 0 {
				w.data = w.data[:rng.IntN(len(w.data)+1)]
			}
			c.saved = w.apply(c.saved)
		}
		if l == Zeros && len(c.saved) > had {
			clear(c.saved[had:])
		}
	}
	c.data = slices.Clone(c.saved)
	return c
}
