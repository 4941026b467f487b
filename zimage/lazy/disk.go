// SPDX-License-Identifier: Apache-2.0

package lazy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
)

// ErrDeadline means that a chunk did not come in time. The disk is of no use
// any more.
var ErrDeadline = errors.New("a part of the disk did not arrive in time")

// File is where chunks go; an *os.File is one.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// Get brings a chunk. It may take as long as its context lasts.
type Get func(ctx context.Context, c zimage.Chunk) ([]byte, error)

// Options of a Disk.
type Options struct {
	// Deadline is how long one read may wait.
	Deadline time.Duration
	// Have says which chunks are in the file already, and were hashed there;
	// nil is none.
	Have []bool
	// Trace lists chunks that are wanted first, in this order.
	Trace []int
	// Head is how many at the begin of Trace are not of a start: every start wants
	// something of them, and a start pack brings that.
	Head int
	// Beside, which may be nil, lists what whoever reads a chunk reads at the same
	// time: it is fetched with it, and nobody waits for it.
	Beside func(i int) []int
	// Calm is how long no read must have waited, or come to a chunk for the first
	// time, before Fill fetches what is not in Trace: a start has the line to
	// itself, also one along a trace, which waits for nothing.
	Calm time.Duration
	// Parallel is how many chunks are fetched at once that nobody waits for.
	Parallel int
	// Arrived, which may be nil, hears of each chunk that is in the file now.
	Arrived func(i int)
	// Next, which may be nil, hears what whoever reads comes to next, by the order
	// of the start pack: blocks that are here, sorted by place. They count as read.
	Next func(l extent.List)
}

// Disk is a disk that is still arriving. All methods may be called by several
// goroutines at once.
type Disk struct {
	m    zimage.Manifest
	file File
	get  Get
	opt  Options

	mu       sync.Mutex
	have     []bool
	missing  int
	flights  map[int]*flight
	twins    map[zimage.Chunk][]int // places of each chunk that has more than one, by what it is at offset 0
	touched  []bool                 // chunks of which something was read
	followed []bool                 // chunks that were read themselves: runs knows of it
	read     *extent.Set            // blocks that were read, up to maxTrace
	trace    extent.List            // the same in the order of their first reads
	traced   []bool                 // what Options.Trace lists
	pack     *packed
	runs     *runs
	wanted   chan struct{} // holds one when runs has something to fetch
	waits    int           // reads that wait
	active   time.Time     // when the last of them began or ended, or came to something new
	began    time.Time
	err      error
	failed   chan struct{}
	whole    chan struct{}
}

// New makes a disk of a manifest. The file is the disk's alone.
func New(m zimage.Manifest, file File, get Get, opt Options) (*Disk, error) {
	n := len(m.Chunks)
	if opt.Deadline <= 0 || opt.Have != nil && len(opt.Have) != n {
		return nil, fmt.Errorf("lazy disk: deadline %v, %d chunks of %d", opt.Deadline, len(opt.Have), n)
	}
	d := &Disk{m: m, file: file, get: get, opt: opt, have: make([]bool, n), touched: make([]bool, n), followed: make([]bool, n), traced: make([]bool, n), read: extent.NewSet(m.DiskSize / extent.BlockSize), pack: newPacked(m),
		flights: map[int]*flight{}, twins: twins(m.Chunks), active: time.Now(), began: time.Now(), runs: newRuns(m.Chunks), wanted: make(chan struct{}, 1), failed: make(chan struct{}), whole: make(chan struct{}), missing: n}
	for i := range opt.Have {
		if d.have[i] = opt.Have[i]; d.have[i] {
			d.missing--
		}
	}
	for _, i := range opt.Trace {
		if i >= 0 && i < n {
			d.traced[i] = true
		}
	}
	if d.missing == 0 {
		close(d.whole)
	}
	return d, nil
}

// Size is the disk's length.
func (d *Disk) Size() int64 { return d.m.DiskSize }

// Whole is closed when everything is there.
func (d *Disk) Whole() <-chan struct{} { return d.whole }

// Failed is closed when the disk has failed; Err then says why.
func (d *Disk) Failed() <-chan struct{} { return d.failed }

// Err is the first failure; nil while there is none.
func (d *Disk) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// maxTrace is how many blocks are noted: what is read behind 256 MiB is no start.
const maxTrace = 1 << 16

// Trace lists the blocks that were read, in the order of their first reads, but
// for so many at its begin, and up to a bound: what the next start of this image
// wants first.
func (d *Disk) Trace(but int64) extent.List {
	d.mu.Lock()
	defer d.mu.Unlock()
	first, left := len(d.trace), d.read.Len()-but
	for first > 0 && left > 0 {
		first--
		left -= d.trace[first].Blocks
	}
	l := slices.Clone(d.trace[first:])
	if left < 0 && len(l) > 0 { // the first of them goes back too far
		l[0].First, l[0].Blocks = l[0].First-left, l[0].Blocks+left
	}
	return l
}

// ReadAt reads what has arrived and waits for what has not.
func (d *Disk) ReadAt(ctx context.Context, b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("lazy disk: offset %d", off)
	}
	if off >= d.m.DiskSize {
		return 0, io.EOF
	}
	short := off+int64(len(b)) > d.m.DiskSize
	b = b[:min(int64(len(b)), d.m.DiskSize-off)]
	if !d.Ready(off, int64(len(b))) {
		if err := d.need(ctx, off, int64(len(b))); err != nil {
			return 0, err
		}
	}
	n, err := d.file.ReadAt(b, off)
	if err == nil && short {
		err = io.EOF
	}
	return n, err
}

// Ready says whether a read would wait for nothing; it counts as a read.
func (d *Disk) Ready(off, n int64) bool {
	ready, next := d.book(off, n)
	if len(next) > 0 {
		d.opt.Next(next)
	}
	return ready
}

// book books a read, and says what Ready says, and what comes next.
func (d *Disk) book(off, n int64) (ready bool, next extent.List) {
	d.mu.Lock()
	defer d.mu.Unlock()
	news := false
	for b := off / extent.BlockSize; b*extent.BlockSize < off+n && d.read.Len() < maxTrace; b++ {
		if d.read.Add(b) {
			d.trace, news = d.trace.Add(b), true
		}
	}
	first, last := d.chunks(off, n)
	ready = d.err == nil
	for i := first; i < last; i++ {
		at := d.place(i, off, n)
		d.touch(i, at)
		if news && !d.have[i] {
			d.active = time.Now()
		}
		ready = ready && at == here
	}
	if news && d.opt.Next != nil {
		next = d.afterwards((off + n - 1) / extent.BlockSize)
	}
	return ready, next
}

// chunks are those of n bytes at off: [first, last).
func (d *Disk) chunks(off, n int64) (first, last int) {
	first = sort.Search(len(d.m.Chunks), func(i int) bool { c := d.m.Chunks[i]; return c.Off+c.Size > off })
	last = first
	for last < len(d.m.Chunks) && d.m.Chunks[last].Off < off+n {
		last++
	}
	return first, last
}

// touch books a read of a chunk, of which the part that is read is at a place:
// the first at all, and the first for which the chunk is wanted. d.mu is held.
func (d *Disk) touch(i int, at place) {
	if !d.touched[i] {
		d.touched[i], d.active = true, time.Now()
	}
	if d.followed[i] || at != elsewhere && !d.have[i] {
		return
	}
	d.followed[i] = true
	soon := func(k int) bool { return d.have[k] || d.flights[k] != nil || d.traced[k] && !d.pack.covers(k) }
	d.runs.read(i, !soon(i), func(k int) bool { return soon(k) || d.pack.covers(k) })
	d.wants()
}

// wants tells Fill that runs has something to fetch. d.mu is held.
func (d *Disk) wants() {
	if len(d.runs.queue) > 0 {
		select {
		case d.wanted <- struct{}{}:
		default:
		}
	}
}

// need waits until n bytes at off are there: all chunks are asked for at once, but
// for those of which the pack brings what is wanted.
func (d *Disk) need(ctx context.Context, off, n int64) error {
	timed, cancel := context.WithTimeoutCause(ctx, d.opt.Deadline, ErrDeadline)
	defer cancel()
	defer d.waiting(d.waiting(1)) // the inner one is now
	first, last := d.chunks(off, n)
	for {
		var waits []<-chan struct{}
		d.mu.Lock()
		err := d.err
		for i := first; i < last && err == nil; i++ {
			at := d.place(i, off, n)
			d.touch(i, at)
			switch at {
			case elsewhere:
				waits = append(waits, d.want(i).done)
			case onItsWay:
				waits = append(waits, d.pack.news())
			}
		}
		d.mu.Unlock()
		if err != nil || len(waits) == 0 {
			return err
		}
		for _, arrived := range waits {
			select {
			case <-arrived:
			case <-d.failed:
				return d.Err()
			case <-timed.Done():
				if ctx.Err() != nil {
					return ctx.Err() // who reads has gone: no fault of the disk's
				}
				return d.fail(fmt.Errorf("%w: waited %v for bytes %d to %d", ErrDeadline, d.opt.Deadline, off, off+n))
			}
		}
	}
}

// waiting counts a read that begins to wait, or, with what it gave, ends.
func (d *Disk) waiting(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waits += n
	d.active = time.Now()
	return -n
}

// fail ends the disk and gives the first reason.
func (d *Disk) fail(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
		close(d.failed)
	}
	return d.err
}

// Fail fails the disk for a reason that its reads cannot know.
func (d *Disk) Fail(err error) { _ = d.fail(err) } // the first reason counts

// Close fails a disk that nobody reads any more, so that nothing is fetched
// for it.
func (d *Disk) Close() { _ = d.fail(errors.New("lazy disk: closed")) } // the reason is ours
