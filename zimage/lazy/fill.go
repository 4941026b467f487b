// SPDX-License-Identifier: Apache-2.0

package lazy

import (
	"context"
	"time"
)

// Fill fetches everything: the trace first, but for the chunks of which a start
// pack brings what a start reads, then what follows reads in their files, then,
// when it is calm, the rest. It returns when the disk is whole,
// has failed, or the context ends; what is under way then arrives, or ends with
// the disk.
func (d *Disk) Fill(ctx context.Context) error {
	slots := make(chan struct{}, max(d.opt.Parallel, 1))
	fetch := func(i int) error {
		if err := ctx.Err(); err != nil { // select would choose by lot
			return err
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		case <-d.failed:
			return d.Err()
		}
		d.mu.Lock()
		if d.have[i] || d.err != nil {
			d.mu.Unlock()
			<-slots
			return nil
		}
		f := d.want(i)
		d.mu.Unlock()
		go func() {
			<-f.done
			<-slots
		}()
		return nil
	}
	for n, i := range d.opt.Trace {
		if i < 0 || i >= len(d.m.Chunks) || d.packed(i, n < d.opt.Head) {
			continue
		}
		if err := fetch(i); err != nil {
			return err
		}
	}
	for next := 0; next < len(d.m.Chunks); {
		i, early := d.following()
		if !early && d.calm(ctx) {
			i, next = next, next+1
		} else if !early {
			continue
		}
		if err := fetch(i); err != nil {
			return err
		}
	}
	select {
	case <-d.whole:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-d.failed:
		return d.Err()
	}
}

// following is a chunk that follows what was read; false is none.
func (d *Disk) following() (int, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.runs.next()
}

// bootsIn is how long a guest with a start pack may take until its first read: it is
// not calm because it boots.
const bootsIn = 30 * time.Second

// calm waits until nothing has happened for a while, and says so; false is that
// something is wanted before.
func (d *Disk) calm(ctx context.Context) bool {
	for ctx.Err() == nil {
		d.mu.Lock()
		left := d.opt.Calm - time.Since(d.active)
		if d.waits > 0 {
			left = d.opt.Calm
		}
		if d.pack.coming.Len() > 0 && d.read.Len() == 0 {
			left = max(left, min(bootsIn-time.Since(d.began), d.opt.Calm))
		}
		failed := d.err != nil
		d.mu.Unlock()
		if left <= 0 || failed {
			return true
		}
		select {
		case <-ctx.Done():
		case <-d.failed:
		case <-d.wanted:
			return false
		case <-time.After(left):
		}
	}
	return true
}
