// SPDX-License-Identifier: Apache-2.0

package lazy

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/zos-node/zos/zimage"
)

// flight is a chunk on its way.
type flight struct{ done chan struct{} }

// want starts to fetch a chunk, and what is read beside it. d.mu is held.
func (d *Disk) want(i int) *flight {
	if d.flights[i] == nil && d.opt.Beside != nil {
		for _, k := range d.opt.Beside(i) {
			if !d.have[k] && !d.pack.covers(k) { // of that, what a read needs has come
				d.fly(k)
			}
		}
	}
	return d.fly(i)
}

// fly starts to fetch a chunk, unless that or another one of its bytes is under
// way. d.mu is held.
func (d *Disk) fly(i int) *flight {
	for _, k := range d.same(i) {
		if f := d.flights[k]; f != nil {
			return f
		}
	}
	f := &flight{done: make(chan struct{})}
	d.flights[i] = f
	go func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() { // a disk that has failed wants nothing more
			select {
			case <-d.failed:
				cancel()
			case <-ctx.Done():
			}
		}()
		b, err := d.bring(ctx, i)
		twins := d.land(i, f, err)
		for k, f := range twins {
			d.land(k, f, d.write(k, b))
		}
	}()
	return f
}

// pause is between two attempts at a chunk that did not come.
const pause = 200 * time.Millisecond

// twins is where each chunk stands that stands in several places.
func twins(chunks []zimage.Chunk) map[zimage.Chunk][]int {
	at := make(map[zimage.Chunk][]int, len(chunks))
	for i, c := range chunks {
		c.Off = 0
		at[c] = append(at[c], i)
	}
	maps.DeleteFunc(at, func(_ zimage.Chunk, at []int) bool { return len(at) == 1 })
	return at
}

// same is a chunk and all others of its bytes, which come with it.
func (d *Disk) same(i int) []int {
	c := d.m.Chunks[i]
	c.Off = 0
	if at := d.twins[c]; at != nil {
		return at
	}
	return []int{i}
}

// bring fetches a chunk into the file. It tries again until its context ends:
// how long is too long is for the reads to say.
func (d *Disk) bring(ctx context.Context, i int) ([]byte, error) {
	c := d.m.Chunks[i]
	for {
		b, err := d.get(ctx, c)
		if err == nil {
			err = c.Check(b)
		}
		if err == nil {
			return b, d.write(i, b)
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}

func (d *Disk) write(i int, b []byte) error {
	if _, err := d.file.WriteAt(b, d.m.Chunks[i].Off); err != nil {
		return d.fail(fmt.Errorf("write disk: %w", err))
	}
	return nil
}

// land books what became of a flight. It gives flights of the same bytes to
// where they are still missing, for whoever landed to write and land: there may be
// thousands of one chunk, and who waits for the first does not wait for those.
func (d *Disk) land(i int, f *flight, err error) map[int]*flight {
	d.mu.Lock()
	delete(d.flights, i)
	arrived := err == nil && !d.have[i]
	var others map[int]*flight
	if arrived {
		d.have[i] = true
		if d.missing--; d.missing == 0 {
			close(d.whole)
		}
		others = d.leave(i)
	}
	d.mu.Unlock()
	if arrived && d.opt.Arrived != nil {
		d.opt.Arrived(i)
	}
	close(f.done)
	return others
}

// leave makes flights to where the bytes of a chunk are missing. d.mu is held.
func (d *Disk) leave(i int) map[int]*flight {
	all := map[int]*flight{}
	for _, k := range d.same(i) {
		if !d.have[k] && d.flights[k] == nil {
			all[k] = &flight{done: make(chan struct{})}
			d.flights[k] = all[k]
		}
	}
	return all
}
