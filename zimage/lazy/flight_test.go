// SPDX-License-Identifier: Apache-2.0

package lazy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zos-node/zos/zimage"
)

// repeated is newOrigin's disk with its first chunks once more at the end, n times.
func repeated(t *testing.T, n int) *origin {
	t.Helper()
	o := newOrigin(t)
	first := o.m.Chunks[:3]
	for range n {
		for _, c := range first {
			o.disk = append(o.disk, o.disk[c.Off:c.Off+c.Size]...)
			o.m.Chunks = append(o.m.Chunks, zimage.Chunk{ID: c.ID, Off: o.m.DiskSize, Size: c.Size})
			o.m.DiskSize += c.Size
		}
	}
	return o
}

// asks counts how often each chunk was asked for, by what it is.
type asks struct {
	mu   sync.Mutex
	of   map[string]int
	gate chan struct{} // nothing comes before it is closed; nil: at once
}

func (a *asks) get(o *origin) Get {
	return func(ctx context.Context, c zimage.Chunk) ([]byte, error) {
		a.mu.Lock()
		a.of[c.ID]++
		a.mu.Unlock()
		if a.gate != nil {
			<-a.gate
		}
		return o.get(ctx, c)
	}
}

// TestTwins: a chunk that stands in several places is fetched once, whoever asks
// for which of them, and all of them have its bytes and are heard of.
func TestTwins(t *testing.T) {
	o, a := repeated(t, 20), &asks{of: map[string]int{}, gate: make(chan struct{})}
	var heard atomic.Int64
	f, err := os.Create(t.TempDir() + "/disk")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // a test's file
	d, err := New(o.m, f, a.get(o), Options{Deadline: time.Minute, Parallel: 4, Arrived: func(int) { heard.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var readers sync.WaitGroup
	for _, c := range o.m.Chunks {
		readers.Go(func() {
			b := make([]byte, c.Size)
			if _, err := d.ReadAt(t.Context(), b, c.Off); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(b, o.disk[c.Off:c.Off+c.Size]) {
				t.Errorf("read at %d: %v", c.Off, err)
			}
		})
	}
	for waiting := 0; waiting < len(o.m.Chunks); runtime.Gosched() {
		d.mu.Lock()
		waiting = d.waits
		d.mu.Unlock()
	}
	close(a.gate)
	readers.Wait()
	<-d.Whole()
	for id, n := range a.of {
		if n != 1 {
			t.Errorf("chunk %s was asked for %d times", id[:8], n)
		}
	}
	whole, err := os.ReadFile(f.Name())
	if err != nil || !bytes.Equal(whole, o.disk) {
		t.Errorf("the file differs from the disk: %v", err)
	}
	if int(heard.Load()) != len(o.m.Chunks) {
		t.Errorf("heard of %d chunks, of %d", heard.Load(), len(o.m.Chunks))
	}
}

// slowAt holds writes to one place up.
type slowAt struct {
	*os.File
	off  int64
	free chan struct{}
}

func (s slowAt) WriteAt(b []byte, off int64) (int, error) {
	if off == s.off {
		<-s.free
	}
	return s.File.WriteAt(b, off)
}

// TestTwinsDoNotHoldUp: who waits for a chunk does not wait until all of its
// other places are written, and who waits for one of those does.
func TestTwinsDoNotHoldUp(t *testing.T) {
	o := repeated(t, 1)
	twin := o.m.Chunks[len(o.m.Chunks)-3]
	f, err := os.Create(t.TempDir() + "/disk")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // a test's file
	slow := slowAt{f, twin.Off, make(chan struct{})}
	a := &asks{of: map[string]int{}}
	d, err := New(o.m, slow, a.get(o), Options{Deadline: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	b := make([]byte, 100)
	if _, err := d.ReadAt(t.Context(), b, o.m.Chunks[0].Off); err != nil {
		t.Fatal(err)
	}
	if d.Ready(twin.Off, 1) {
		t.Error("a place that is not written counts as there")
	}
	read := make(chan error, 1)
	go func() {
		_, err := d.ReadAt(t.Context(), b, twin.Off)
		read <- err
	}()
	close(slow.free)
	if err := <-read; err != nil || !bytes.Equal(b, o.disk[twin.Off:][:100]) {
		t.Errorf("read of the twin: %v", err)
	}
	if n := a.of[twin.ID]; n != 1 {
		t.Errorf("asked for %d times", n)
	}
}
