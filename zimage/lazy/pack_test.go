// SPDX-License-Identifier: Apache-2.0

package lazy

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/zos-node/zos/zimage/extent"
)

// at is the list of some blocks of a chunk.
func (o *origin) at(chunk int, first, blocks int64) extent.List {
	return extent.List{{First: o.m.Chunks[chunk].Off/4096 + first, Blocks: blocks}}
}

// bring puts blocks as a pack does.
func (o *origin) bring(t *testing.T, d *Disk, l extent.List) {
	t.Helper()
	for _, e := range l {
		for k := e.First; k < e.End(); k++ {
			if err := d.Put(k, o.disk[k*4096:(k+1)*4096]); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// read reads blocks, and says on a channel whether they are right.
func (o *origin) read(t *testing.T, d *Disk, l extent.List) <-chan error {
	done := make(chan error, 1)
	go func() {
		for _, e := range l {
			b := make([]byte, e.Blocks*4096)
			if _, err := d.ReadAt(t.Context(), b, e.First*4096); err != nil {
				done <- err
				return
			}
			if !bytes.Equal(b, o.disk[e.First*4096:e.End()*4096]) {
				done <- errors.New("wrong bytes")
				return
			}
		}
		done <- nil
	}()
	return done
}

func (d *Disk) waiters() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waits
}

// until waits for something that others do.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

// TestPack: blocks that a pack brought are read while their chunks are not there,
// and ask for none; a read of what it is about to bring waits for that; one of
// more than that waits for the chunk.
func TestPack(t *testing.T) {
	o := newOrigin(t)
	for i := range o.m.Chunks {
		o.hold[i] = make(chan struct{})
	}
	d, _ := o.open(t, Options{Parallel: 2, Calm: time.Hour, Trace: []int{0, 1, 2, 3, 6}, Head: 2})
	l := append(o.at(2, 1, 3), o.at(3, 0, 2)...)
	if n := d.Expect(l); n != 5 {
		t.Errorf("%d blocks are lacking", n)
	}
	ctx, stop := context.WithCancel(t.Context())
	filled := make(chan error, 1)
	go func() { filled <- d.Fill(ctx) }()
	until(t, "what of the trace is in no pack", func() bool { return slices.Contains(o.order(), 6) })

	o.bring(t, d, o.at(2, 1, 2))
	if err := <-o.read(t, d, o.at(2, 1, 2)); err != nil {
		t.Error(err)
	}
	coming := o.read(t, d, o.at(2, 2, 2))
	until(t, "a read to wait", func() bool { return d.waiters() == 1 })
	o.bring(t, d, l)
	if err := <-coming; err != nil {
		t.Error(err)
	}
	if n := d.Expect(l); n != 0 {
		t.Errorf("%d blocks are lacking at the end", n)
	}
	d.Packed()
	if got := o.order(); !slices.Equal(got, []int{6}) {
		t.Errorf("asked for %v", got)
	}

	more := o.read(t, d, o.at(3, 1, 2)) // one in the pack, one not
	until(t, "the chunk to be asked for", func() bool { return slices.Contains(o.order(), 3) })
	select {
	case err := <-more:
		t.Errorf("a read beyond the pack did not wait: %v", err)
	default:
	}
	close(o.hold[3])
	if err := <-more; err != nil {
		t.Error(err)
	}
	stop()
	<-filled
	want := extent.List{{First: o.m.Chunks[2].Off/4096 + 1, Blocks: 3}, {First: o.m.Chunks[3].Off/4096 + 1, Blocks: 2}}
	if got := d.Trace(0); !slices.Equal(got, want) {
		t.Errorf("trace %v, want %v", got, want)
	}
	if got := d.Trace(1); !slices.Equal(got, extent.List{{First: want[0].First + 1, Blocks: 2}, want[1]}) {
		t.Errorf("behind its first block %v", got)
	}
	if got := append(d.Trace(5), d.Trace(9)...); len(got) != 0 {
		t.Errorf("behind its end %v", got)
	}
}

// TestPackEndsEarly: what a pack did not bring comes by chunks, for reads that
// waited for it, and without one; what it brought stays good.
func TestPackEndsEarly(t *testing.T) {
	o := newOrigin(t)
	d, _ := o.open(t, Options{Parallel: 2, Calm: time.Hour, Trace: []int{2, 4}})
	l := append(o.at(2, 1, 3), o.at(4, 0, 2)...)
	d.Expect(l)
	o.bring(t, d, o.at(2, 1, 2))
	read := o.read(t, d, o.at(2, 3, 1))
	until(t, "a read to wait", func() bool { return d.waiters() == 1 })
	go d.Fill(t.Context()) // ends with the test
	if got := o.order(); len(got) != 0 {
		t.Errorf("asked for %v while the pack comes", got)
	}
	d.Packed()
	d.Packed() // says no more
	if err := <-read; err != nil {
		t.Error(err)
	}
	until(t, "the rest of the pack by chunks", func() bool { return slices.Contains(o.order(), 4) })
	if err := <-o.read(t, d, l); err != nil {
		t.Error(err)
	}
}

// TestPackAndChunks: with a pack that comes beside everything else, in pieces and
// twice, all reads give the disk's bytes, and the disk is whole in the end.
func TestPackAndChunks(t *testing.T) {
	o := newOrigin(t)
	d, _ := o.open(t, Options{Parallel: 2, Trace: []int{1, 2, 3}, Have: func() []bool { h := make([]bool, len(o.m.Chunks)); return h }()})
	l := append(append(o.at(1, 0, 64), o.at(3, 10, 20)...), o.at(len(o.m.Chunks)-1, 0, 1)...)
	d.Expect(l)
	filled := make(chan error, 1)
	go func() { filled <- d.Fill(t.Context()) }()
	reads := []<-chan error{o.read(t, d, l), o.read(t, d, o.at(2, 60, 8)), o.read(t, d, extent.List{{First: 0, Blocks: d.Size() / 4096}})}
	o.bring(t, d, l)
	d.Expect(l)
	o.bring(t, d, l)
	d.Packed()
	for _, r := range reads {
		if err := <-r; err != nil {
			t.Error(err)
		}
	}
	if err := <-filled; err != nil {
		t.Fatal(err)
	}
	<-d.Whole()
	b := make([]byte, d.Size())
	if _, err := d.ReadAt(t.Context(), b, 0); err != nil || !bytes.Equal(b, o.disk) {
		t.Errorf("the whole disk: %v", err)
	}
}

// TestBoots: with a pack, what the start does not need waits also while the guest
// has not read anything yet, and comes when the start is calm.
func TestBoots(t *testing.T) {
	o := newOrigin(t)
	d, _ := o.open(t, Options{Calm: time.Millisecond})
	l := o.at(2, 0, 1)
	d.Expect(l)
	o.bring(t, d, l)
	d.Packed()
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // of bootsIn
	defer cancel()
	if err := d.Fill(soon); !errors.Is(err, context.DeadlineExceeded) || len(o.order()) != 0 {
		t.Errorf("it was calm before the first read: %v, asked for %v", err, o.order())
	}
	if err := <-o.read(t, d, l); err != nil {
		t.Fatal(err)
	}
	if err := d.Fill(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestPackIsNotTheChunk: a chunk all of whose blocks a pack brought is fetched
// before the disk counts as whole, and nothing that is here is asked of a pack.
func TestPackIsNotTheChunk(t *testing.T) {
	o := newOrigin(t)
	have := make([]bool, len(o.m.Chunks))
	for i := range have {
		have[i] = i != 2
	}
	d, f := o.open(t, Options{Have: have})
	if _, err := f.WriteAt(o.disk, 0); err != nil {
		t.Fatal(err)
	}
	if n := d.Expect(o.at(1, 0, 1)); n != 0 {
		t.Errorf("%d blocks are lacking of a chunk that is here", n)
	}
	all := o.at(2, 0, o.m.Chunks[2].Size/4096)
	if n := d.Expect(all); n != all.Blocks() {
		t.Errorf("%d blocks are lacking of %d", n, all.Blocks())
	}
	o.bring(t, d, all)
	d.Packed()
	select {
	case <-d.Whole():
		t.Error("whole, though nobody hashed the chunk")
	default:
	}
	if err := d.Fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := o.order(); !slices.Equal(got, []int{2}) {
		t.Errorf("asked for %v", got)
	}
}

// TestPackDoesNotCome: a read that waits for a pack fails the disk at the
// deadline, as one that waits for a chunk does.
func TestPackDoesNotCome(t *testing.T) {
	o := newOrigin(t)
	d, _ := o.open(t, Options{Deadline: 20 * time.Millisecond})
	d.Expect(o.at(1, 0, 1))
	if err := <-o.read(t, d, o.at(1, 0, 1)); !errors.Is(err, ErrDeadline) {
		t.Errorf("got %v", err)
	}
	if err := d.Put(o.at(1, 0, 1)[0].First, make([]byte, 4096)); !errors.Is(err, ErrDeadline) {
		t.Errorf("a failed disk takes blocks: %v", err)
	}
}

// TestNext: a read says what a start reads next by the pack's order, as far as it is
// here, once; what was handed on counts as read, and asks for nothing more.
func TestNext(t *testing.T) {
	o := newOrigin(t)
	var next []extent.List
	d, _ := o.open(t, Options{Calm: time.Hour, Next: func(l extent.List) { next = append(next, l) }})
	l := append(append(o.at(3, 8, 1), o.at(2, 1, 3)...), append(o.at(3, 7, 1), o.at(1, 0, 2)...)...)
	d.Expect(l)
	read := func(l extent.List) {
		t.Helper()
		if err := <-o.read(t, d, l); err != nil {
			t.Fatal(err)
		}
	}
	o.bring(t, d, l[:1])
	read(l[:1]) // what comes next is not here
	if len(next) != 0 {
		t.Errorf("next is %v", next)
	}
	o.bring(t, d, l[1:3])
	read(extent.List{{First: l[1].First, Blocks: 1}})
	want := extent.List{{First: l[1].First + 1, Blocks: 2}, l[2]}
	if len(next) != 1 || !slices.Equal(next[0], want) {
		t.Fatalf("next is %v, want %v", next, want)
	}
	o.bring(t, d, l[3:])
	read(want) // as the kernel does then
	if len(next) != 1 {
		t.Errorf("what was read ahead asked for %v", next[1:])
	}
	read(extent.List{{First: l[3].First, Blocks: 1}})
	read(extent.List{{First: l[3].First + 1, Blocks: 1}})
	want = extent.List{{First: l[3].First + 1, Blocks: 1}}
	if len(next) != 2 || !slices.Equal(next[1], want) {
		t.Errorf("next is %v, want %v", next[1:], want)
	}
	if got := d.Trace(0); !slices.Equal(got, l) {
		t.Errorf("trace %v, want %v", got, l)
	}
}
