// SPDX-License-Identifier: Apache-2.0

package lazy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
	"github.com/zos-node/zos/zimage/zimagetest"
)

// origin is an image, and where its chunks come from.
type origin struct {
	store *zimage.Store
	m     zimage.Manifest
	disk  []byte

	mu    sync.Mutex
	asked []int
	hold  map[int]chan struct{} // chunks that wait
	lie   map[int]int           // chunks that are wrong so many times
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	store, err := zimage.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{store: store, hold: map[int]chan struct{}{}, lie: map[int]int{}}
	if o.m, _, err = zimage.Convert(t.Context(), zimagetest.Image(t, map[string]int{"a": 3 << 20, "b": 70000, "c": 100}), "linux/amd64", store, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range o.m.Chunks {
		b, err := store.Chunk(c)
		if err != nil {
			t.Fatal(err)
		}
		o.disk = append(o.disk, b...)
	}
	return o
}

func (o *origin) get(ctx context.Context, c zimage.Chunk) ([]byte, error) {
	i := slices.IndexFunc(o.m.Chunks, func(x zimage.Chunk) bool { return x.Off == c.Off })
	o.mu.Lock()
	o.asked = append(o.asked, i)
	wait := o.hold[i]
	o.lie[i]--
	lie := o.lie[i] >= 0
	o.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if lie {
		return make([]byte, c.Size), nil
	}
	return o.store.Chunk(c)
}

func (o *origin) order() []int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.asked)
}

func (o *origin) open(t *testing.T, opt Options) (*Disk, *os.File) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	if opt.Deadline == 0 {
		opt.Deadline = time.Minute
	}
	d, err := New(o.m, f, o.get, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(); f.Close() }) // a test's file
	return d, f
}

// TestReadsWhileItArrives: reads at any place and of any length give the
// disk's bytes, while everything arrives, and each chunk is fetched once.
func TestReadsWhileItArrives(t *testing.T) {
	o := newOrigin(t)
	d, _ := o.open(t, Options{Parallel: 2})
	filled := make(chan error, 1)
	go func() { filled <- d.Fill(t.Context()) }()
	var readers sync.WaitGroup
	for seed := range uint64(4) {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			for range 100 {
				off := r.Int64N(d.Size())
				b := make([]byte, r.IntN(600<<10)+1)
				n, err := d.ReadAt(t.Context(), b, off)
				want := o.disk[off:min(off+int64(len(b)), d.Size())]
				if !bytes.Equal(b[:n], want) || err != nil && !errors.Is(err, io.EOF) {
					t.Errorf("read %d bytes at %d: %d, %v", len(b), off, n, err)
					return
				}
			}
		})
	}
	readers.Wait()
	if err := <-filled; err != nil {
		t.Fatal(err)
	}
	<-d.Whole()
	asked := o.order()
	slices.Sort(asked)
	if once := slices.Compact(slices.Clone(asked)); len(once) != len(asked) || len(once) != len(o.m.Chunks) {
		t.Errorf("asked for %d chunks, %d different ones of %d", len(asked), len(once), len(o.m.Chunks))
	}
	if _, err := d.ReadAt(t.Context(), make([]byte, 1), d.Size()); !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %v", err)
	}
}

// TestBeside: what belongs to a chunk is asked for with it, by reads and along
// a trace, once, and no read waits for it.
func TestBeside(t *testing.T) {
	o := newOrigin(t)
	last := len(o.m.Chunks) - 1
	o.hold[last], o.hold[last-1] = make(chan struct{}), make(chan struct{})
	d, _ := o.open(t, Options{Parallel: 1, Calm: time.Hour, Trace: []int{4, 5}, Beside: func(i int) []int {
		return map[int][]int{1: {last}, 4: {last, last - 1}}[i]
	}})
	if _, err := d.ReadAt(t.Context(), make([]byte, 1), o.m.Chunks[1].Off); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	filled := make(chan error, 1)
	go func() { filled <- d.Fill(ctx) }()
	if _, err := d.ReadAt(t.Context(), make([]byte, 1), o.m.Chunks[5].Off); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); !slices.Contains(o.order(), last) || !slices.Contains(o.order(), last-1); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("asked for %v, not for what belongs to it", o.order())
		}
	}
	close(o.hold[last])
	close(o.hold[last-1])
	if _, err := d.ReadAt(t.Context(), make([]byte, 1), o.m.Chunks[last].Off); err != nil {
		t.Fatal(err)
	}
	stop()
	<-filled
	asked := o.order()
	for _, i := range []int{last, last - 1} {
		if n := len(slices.DeleteFunc(slices.Clone(asked), func(k int) bool { return k != i })); n != 1 {
			t.Errorf("chunk %d was asked for %d times", i, n)
		}
	}
}

// TestReadGoesFirst: what a read waits for does not wait for the rest.
func TestReadGoesFirst(t *testing.T) {
	o := newOrigin(t)
	for i := range 4 {
		o.hold[i] = make(chan struct{})
	}
	d, _ := o.open(t, Options{Parallel: 2})
	go d.Fill(t.Context()) // ends with the disk
	last := len(o.m.Chunks) - 1
	b := make([]byte, 100)
	if _, err := d.ReadAt(t.Context(), b, o.m.Chunks[last].Off); err != nil || !bytes.Equal(b, o.disk[o.m.Chunks[last].Off:][:100]) {
		t.Errorf("a read past chunks that do not come: %v", err)
	}
	if got := d.Trace(0); !slices.Equal(got, extent.List{{First: o.m.Chunks[last].Off / 4096, Blocks: 1}}) {
		t.Errorf("trace %v", got)
	}
	for i := range 4 {
		close(o.hold[i])
	}
	<-d.Whole()
}

// TestTrace: the next start asks in the order of the last one, whatever the
// trace says of chunks that there are not.
func TestTrace(t *testing.T) {
	o := newOrigin(t)
	d, _ := o.open(t, Options{Parallel: 1, Trace: []int{5, -1, 3, 1 << 40, 7, 5}})
	if err := d.Fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := o.order(); !slices.Equal(got[:4], []int{5, 3, 7, 0}) {
		t.Errorf("asked in the order %v", got)
	}
}

// TestHave: what is there is not fetched again.
func TestHave(t *testing.T) {
	o := newOrigin(t)
	have := make([]bool, len(o.m.Chunks))
	for i := range have {
		have[i] = i != 2
	}
	d, f := o.open(t, Options{Have: have})
	if _, err := f.WriteAt(o.disk, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Fill(t.Context()); err != nil || !slices.Equal(o.order(), []int{2}) {
		t.Errorf("asked for %v, %v", o.order(), err)
	}
}

// TestLie: a wrong chunk is never served, nor written, and asked for again.
func TestLie(t *testing.T) {
	o := newOrigin(t)
	o.lie[1] = 2
	d, f := o.open(t, Options{})
	b := make([]byte, o.m.Chunks[1].Size)
	if _, err := d.ReadAt(t.Context(), b, o.m.Chunks[1].Off); err != nil || !bytes.Equal(b, o.disk[o.m.Chunks[1].Off:][:len(b)]) {
		t.Errorf("after two lies: %v", err)
	}
	if _, err := f.ReadAt(b, o.m.Chunks[1].Off); err != nil || !bytes.Equal(b, o.disk[o.m.Chunks[1].Off:][:len(b)]) {
		t.Errorf("the file has other bytes: %v", err)
	}
	if got := len(o.order()); got != 3 {
		t.Errorf("asked %d times", got)
	}
}

// TestDeadline: a read that waits too long ends the disk, for all reads, with
// a reason; one whose reader went away does not.
func TestDeadline(t *testing.T) {
	o := newOrigin(t)
	o.hold[1] = make(chan struct{})
	d, _ := o.open(t, Options{Deadline: 300 * time.Millisecond})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.ReadAt(gone, make([]byte, 1), o.m.Chunks[1].Off); !errors.Is(err, context.Canceled) || d.Err() != nil {
		t.Errorf("a reader that went away: %v, the disk %v", err, d.Err())
	}
	// A disk that does not fail would have the rest wait for ever: that is to be said.
	patient, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if _, err := d.ReadAt(patient, make([]byte, 1), o.m.Chunks[1].Off); !errors.Is(err, ErrDeadline) {
		t.Fatalf("got %v", err)
	}
	select {
	case <-d.Failed():
	default:
		t.Fatal("a read waited too long, and the disk goes on")
	}
	if _, err := d.ReadAt(patient, make([]byte, 1), o.m.Chunks[3].Off); !errors.Is(err, ErrDeadline) {
		t.Errorf("a read afterwards: %v", err)
	}
	if err := d.Fill(patient); !errors.Is(err, ErrDeadline) {
		t.Errorf("filling afterwards: %v", err)
	}
}

// TestFromMirrors: a disk that is filled from mirrors is the disk.
func TestFromMirrors(t *testing.T) {
	o := newOrigin(t)
	srv := httptest.NewServer(zimage.Handler(o.store))
	defer srv.Close()
	get, err := (&zimage.Fetcher{Mirrors: []string{srv.URL}}).Chunks()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := New(o.m, f, get, Options{Deadline: time.Minute, Parallel: 4})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := zimage.VerifyImage(f.Name(), o.m); err != nil {
		t.Error(err)
	}
}

// TestCalm: while a read waits, nothing is fetched that nobody wants.
func TestCalm(t *testing.T) {
	o := newOrigin(t)
	last := len(o.m.Chunks) - 1 // which nothing follows
	o.hold[last] = make(chan struct{})
	d, _ := o.open(t, Options{Parallel: 1, Calm: time.Hour, Trace: []int{5, 3}})
	read := make(chan error, 1)
	go func() {
		_, err := d.ReadAt(t.Context(), make([]byte, 1), o.m.Chunks[last].Off)
		read <- err
	}()
	for !slices.Contains(o.order(), last) {
		runtime.Gosched()
	}
	ctx, cancel := context.WithCancel(t.Context())
	filled := make(chan error, 1)
	go func() { filled <- d.Fill(ctx) }()
	for !slices.Contains(o.order(), 3) {
		runtime.Gosched()
	}
	close(o.hold[last])
	if err := <-read; err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-filled; !errors.Is(err, context.Canceled) {
		t.Errorf("filling: %v", err)
	}
	if got := o.order(); !slices.Equal(got, []int{last, 5, 3}) {
		t.Errorf("asked for %v", got)
	}
}

// TestNewIsNotCalm: a start along a trace waits for nothing, and still goes on as
// long as it comes to what it has not read.
func TestNewIsNotCalm(t *testing.T) {
	o := newOrigin(t)
	have := make([]bool, len(o.m.Chunks))
	for i := range have {
		have[i] = true
	}
	d, _ := o.open(t, Options{Have: have})
	for _, again := range []bool{false, true} {
		d.active = time.Time{}
		if !d.Ready(o.m.Chunks[5].Off, 1) {
			t.Fatal("a chunk that is there is not ready")
		}
		if d.active.IsZero() != again {
			t.Errorf("read again: %v, something happened: %v", again, !d.active.IsZero())
		}
	}
}

// TestFollows: who reads a part of a file gets what follows it early, a little
// at a time, and nothing of what follows the file.
func TestFollows(t *testing.T) {
	o := newOrigin(t) // file a is chunks 1 to 12
	first, end := 1, 0
	for end = first; o.m.Chunks[end].Size == zimage.MaxChunk; end++ {
	}
	o.hold[0] = make(chan struct{}) // a read that waits: no time for the rest
	d, _ := o.open(t, Options{Parallel: 1, Calm: time.Hour})
	go d.ReadAt(t.Context(), make([]byte, 1), 0) // until the disk is closed
	for !slices.Contains(o.order(), 0) {
		runtime.Gosched()
	}
	go d.Fill(t.Context()) // ends with the disk
	want := []int{0}
	read := func(i, ahead int) {
		t.Helper()
		if _, err := d.ReadAt(t.Context(), make([]byte, 1), o.m.Chunks[i].Off); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(want, i) {
			want = append(want, i)
		}
		for k := len(want); k < 1+ahead; k++ {
			want = append(want, first+k-1)
		}
		for len(o.order()) < len(want) {
			runtime.Gosched()
		}
		if got := slices.Sorted(slices.Values(o.order())); !slices.Equal(got, want) {
			t.Fatalf("after chunk %d was read: asked for %v, want %v", i, got, want)
		}
	}
	read(first, 1+aheadOfReads)
	read(first+1, 2+aheadOfReads)
	read(first+aheadOfReads, 3+aheadOfReads) // one more was read, so one more may come
	if end-first < 2+aheadOfReads {
		t.Fatalf("file a ends at chunk %d: the test did not test", end)
	}
}
