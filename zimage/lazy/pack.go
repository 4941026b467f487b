// SPDX-License-Identifier: Apache-2.0

package lazy

import (
	"fmt"
	"slices"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
)

// place is where bytes are that somebody reads.
type place int

const (
	elsewhere place = iota // their chunk must be fetched
	onItsWay               // the start pack brings them
	here
)

// packed is what a disk has of a start pack. All of it is guarded by the disk's
// lock.
type packed struct {
	have   *extent.Set   // blocks that are in the file
	coming *extent.Set   // blocks that are to come, or came
	listed extent.List   // the same, in their order
	order  []int64       // the same, one by one
	at     map[int64]int // where each stands in order
	ended  bool          // no more comes
	chunks []bool        // of which something is to come, or came
	next   chan struct{}
}

func newPacked(m zimage.Manifest) *packed {
	blocks := m.DiskSize / extent.BlockSize
	return &packed{have: extent.NewSet(blocks), coming: extent.NewSet(blocks), at: map[int64]int{}, ended: true, chunks: make([]bool, len(m.Chunks))}
}

// place is where the bytes of a chunk from and up to two offsets are.
func (p *packed) place(i int, from, to int64) place {
	if !p.chunks[i] {
		return elsewhere
	}
	at := here
	for b := from / extent.BlockSize; b*extent.BlockSize < to; b++ {
		switch {
		case p.have.Has(b):
		case !p.ended && p.coming.Has(b):
			at = onItsWay
		default:
			return elsewhere
		}
	}
	return at
}

// place is where the part of a chunk is that a read of n bytes at off wants. d.mu
// is held.
func (d *Disk) place(i int, off, n int64) place {
	if d.have[i] {
		return here
	}
	c := d.m.Chunks[i]
	return d.pack.place(i, max(off, c.Off), min(off+n, c.Off+c.Size))
}

// covers says whether something of a chunk is to come, or came.
func (p *packed) covers(i int) bool { return p.chunks[i] }

// news is closed when something has come, or nothing more does.
func (p *packed) news() <-chan struct{} {
	if p.next == nil {
		p.next = make(chan struct{})
	}
	return p.next
}

func (p *packed) tell() {
	if p.next != nil {
		close(p.next)
		p.next = nil
	}
}

// Expect says which blocks a start pack is about to bring: reads wait for them and
// do not ask for their chunks, and what Options.Trace says of these waits until the
// start is calm. It gives how many of them are not here yet. It may be said again
// when the pack comes from elsewhere.
func (d *Disk) Expect(l extent.List) (lacking int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pack
	p.ended, p.listed = false, append(p.listed, l...)
	for _, e := range l {
		first, last := d.chunks(e.First*extent.BlockSize, e.Blocks*extent.BlockSize)
		for i := first; i < last; i++ {
			c := d.m.Chunks[i]
			if d.have[i] {
				continue
			}
			p.chunks[i] = true
			for b := max(e.First, c.Off/extent.BlockSize); b < min(e.End(), (c.Off+c.Size)/extent.BlockSize); b++ {
				if p.coming.Add(b) {
					p.at[b] = len(p.order)
					p.order = append(p.order, b)
				}
				if !p.have.Has(b) {
					lacking++
				}
			}
		}
	}
	return lacking
}

// Put takes a block that Expect named. The caller has held it against the root.
func (d *Disk) Put(block int64, b []byte) error {
	d.mu.Lock()
	known := d.err != nil || d.pack.have.Has(block)
	d.mu.Unlock()
	if known {
		return d.Err()
	}
	if _, err := d.file.WriteAt(b, block*extent.BlockSize); err != nil {
		return d.fail(fmt.Errorf("write disk: %w", err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pack.have.Add(block)
	d.pack.tell()
	return nil
}

// Packed says that no more of the pack comes. What has not come is wanted by
// chunks, at once.
func (d *Disk) Packed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pack
	if p.ended {
		return
	}
	p.ended = true
	queued := map[int]bool{}
	for _, e := range p.listed {
		for b := e.First; b < e.End(); b++ {
			if i, _ := d.chunks(b*extent.BlockSize, 1); !p.have.Has(b) && !d.have[i] && !queued[i] {
				queued[i] = true
				d.runs.queue = append(d.runs.queue, i)
			}
		}
	}
	p.listed = nil
	d.wants()
	p.tell()
}

// packed says whether a start pack makes it needless to fetch a chunk now: it
// brings something of it, or anything, if the chunk is of Options.Head.
func (d *Disk) packed(i int, head bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pack.covers(i) || head && d.pack.coming.Len() > 0
}

// followed is how many blocks are handed on at once that nobody has read yet: a
// quarter of a MiB, so that what the last of a start gets for nothing is little.
const followed = 64

// afterwards gives what a start reads behind a block by the pack's order, if the
// very next one is here and was not read: what of the next so many is. They count as
// read. d.mu is held.
func (d *Disk) afterwards(block int64) extent.List {
	p := d.pack
	at, known := p.at[block]
	if !known || at+1 == len(p.order) {
		return nil
	}
	var next []int64
	for k, b := range p.order[at+1 : min(at+1+followed, len(p.order))] {
		i, _ := d.chunks(b*extent.BlockSize, 1)
		fresh := d.read.Len() < maxTrace && d.place(i, b*extent.BlockSize, extent.BlockSize) == here && d.read.Add(b)
		if fresh {
			d.trace, next = d.trace.Add(b), append(next, b)
		} else if k == 0 {
			return nil
		}
	}
	slices.Sort(next)
	var l extent.List
	for _, b := range next {
		l = l.Add(b)
	}
	return l
}
