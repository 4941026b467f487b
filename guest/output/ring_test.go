// SPDX-License-Identifier: Apache-2.0

package output

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

func drain(r *Ring, from int64) (string, int64) {
	var s strings.Builder
	for {
		p, ok := r.At(from)
		if !ok {
			return s.String(), from
		}
		fmt.Fprintf(&s, "%d:%s ", p.Seq, p.Data)
		from = p.Seq + 1
	}
}

func TestRing(t *testing.T) {
	r := New(10)
	r.Add("stdout", []byte("aaaa"))
	r.Add("stderr", nil)
	r.Add("stderr", []byte("bbbb"))
	got, at := drain(r, 0)
	if got != "0:aaaa 1:bbbb " || at != 2 || r.Next() != 2 {
		t.Errorf("%q, then %d of %d", got, at, r.Next())
	}
	// Sent pieces make room without loss, and can be had again while they last.
	r.Add("stdout", []byte("cccc"))
	if got, _ := drain(r, 0); got != "1:bbbb 2:cccc " || r.Dropped() != 0 {
		t.Errorf("again %q, dropped %d", got, r.Dropped())
	}
	// What nobody took is dropped, oldest first, and counted.
	for range 5 {
		r.Add("stdout", []byte("dddd"))
	}
	if got, at := drain(r, 3); got != "6:dddd 7:dddd " || at != 8 || r.Dropped() != 12 {
		t.Errorf("%q, then %d, dropped %d", got, at, r.Dropped())
	}
	// A piece larger than the ring is lost as a whole.
	r.Add("stdout", []byte(strings.Repeat("e", 11)))
	if got, _ := drain(r, 8); got != "" || r.Dropped() != 23 || r.Next() != 9 {
		t.Errorf("%q, dropped %d, next %d", got, r.Dropped(), r.Next())
	}
}

func TestRingKeepsItsOwnCopy(t *testing.T) {
	r := New(10)
	buf := []byte("one")
	r.Add("stdout", buf)
	copy(buf, "two")
	if p, _ := r.At(0); string(p.Data) != "one" {
		t.Errorf("%q", p.Data)
	}
}

func TestRingConcurrently(t *testing.T) {
	const each = 2000
	r := New(1 << 10)
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for range each {
				r.Add(fmt.Sprint(w), []byte("x"))
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	var got, from int64
	for finished := false; !finished; {
		changed := r.Changed()
		select {
		case <-changed:
		case <-done:
			finished = true
		}
		for {
			p, ok := r.At(from)
			if !ok {
				break
			}
			if p.Seq < from {
				t.Fatalf("went back from %d to %d", from, p.Seq)
			}
			got, from = got+int64(len(p.Data)), p.Seq+1
		}
	}
	if got+r.Dropped() != 4*each || r.Next() != from {
		t.Errorf("%d read and %d dropped, then %d of %d", got, r.Dropped(), from, r.Next())
	}
}

// What is written byte by byte must not cost much more than its bytes.
func TestRingBytewise(t *testing.T) {
	const limit, writes = 64 << 10, 300_000
	r := New(limit)
	for i := range writes {
		r.Add("stdout", []byte{byte(i)})
	}
	got := 0
	for from := int64(0); ; {
		p, ok := r.At(from)
		if !ok {
			break
		}
		for i, b := range p.Data {
			if want := byte(int(r.Dropped()) + got + i); b != want {
				t.Fatalf("byte %d of piece %d is %d, want %d", i, p.Seq, b, want)
			}
		}
		if len(p.Data) > limit/growPart {
			t.Errorf("piece %d has %d bytes", p.Seq, len(p.Data))
		}
		got, from = got+len(p.Data), p.Seq+1
	}
	if got+int(r.Dropped()) != writes || got < limit-limit/growPart {
		t.Errorf("%d kept, %d dropped of %d", got, r.Dropped(), writes)
	}
	// A piece that was sent is never added to: its number stands for its bytes.
	r.Add("stdout", []byte("a"))
	was, _ := r.At(r.Next() - 1)
	r.Add("stdout", []byte("b"))
	if now, ok := r.At(was.Seq); !ok || string(was.Data) != "a" || string(now.Data) != "a" {
		t.Errorf("a sent piece changed from %q to %q", was.Data, now.Data)
	}
	// Each taken at once: there are many small ones then, but not too many.
	for range writes {
		r.Add("stdout", []byte("x"))
		r.At(r.Next() - 1)
	}
	if len(r.pieces) > limit/meanPiece || cap(r.pieces) > 4*limit/meanPiece {
		t.Errorf("%d pieces in an array for %d", len(r.pieces), cap(r.pieces))
	}
}

// BenchmarkBytewise is a workload that writes single bytes, for an agent that
// is away (the ring is full, each byte pushes one out) and for one that takes
// each at once.
func BenchmarkBytewise(b *testing.B) {
	for _, taken := range []bool{false, true} {
		b.Run(fmt.Sprintf("taken=%t", taken), func(b *testing.B) {
			r := New(Limit)
			one := []byte("x")
			add := func() {
				r.Add("stdout", one)
				if taken {
					r.At(r.Next() - 1)
				}
			}
			for range Limit {
				add()
			}
			b.ReportAllocs()
			for b.Loop() {
				add()
			}
		})
	}
}
