// SPDX-License-Identifier: Apache-2.0

// Package output keeps the last of what the workload wrote, so that writing
// never waits: neither the workload for an agent that is away, nor PID 1 for
// the workload.
//
// Pieces are numbered. One that was sent stays until its room is needed: an
// agent that lost its connection asks for it again by number. When the oldest
// piece has to go before it was ever sent, its bytes are counted as dropped.
//
// A workload may write byte by byte. What was not sent yet grows to pieces of
// some size, and the number of pieces is bounded beside their bytes, so that
// each write costs a constant time and what a piece costs beyond its bytes is
// a fraction of the whole.
package output

import "sync"

// Limit is how many bytes are kept.
const Limit = 256 << 10

// Piece is a part of one stream.
type Piece struct {
	Seq    int64
	Stream string
	Data   []byte
}

// Ring is the store. The zero value is not ready, see New.
type Ring struct {
	limit int // of bytes
	most  int // of pieces
	grows int // size up to which a piece that was not sent is added to

	mu      sync.Mutex
	pieces  []Piece // pieces[i].Seq == first + i
	first   int64
	size    int
	sent    int64 // every piece below it was sent at least once
	dropped int64
	changed chan struct{} // closed when a piece comes; nil while nobody waits
}

const (
	// meanPiece is the size that pieces need on average for a full ring.
	meanPiece = 64
	fewest    = 64 // pieces that any ring may have
	// growPart of a ring is what one piece grows to at most.
	growPart = 64
)

// New makes an empty ring; pieces are numbered from 0.
func New(limit int) *Ring {
	return &Ring{limit: limit, most: max(limit/meanPiece, fewest), grows: limit / growPart}
}

// Add takes a copy of data.
func (r *Ring) Add(stream string, data []byte) {
	if len(data) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := len(r.pieces) - 1; last >= 0 && r.pieces[last].Seq >= r.sent && r.pieces[last].Stream == stream && len(r.pieces[last].Data)+len(data) <= r.grows {
		r.pieces[last].Data = append(r.pieces[last].Data, data...) // nobody else has seen it
	} else {
		r.pieces = append(r.pieces, Piece{Seq: r.first + int64(len(r.pieces)), Stream: stream, Data: append([]byte(nil), data...)})
	}
	r.size += len(data)
	gone := 0
	for (r.size > r.limit || len(r.pieces)-gone > r.most) && gone < len(r.pieces) {
		p := r.pieces[gone]
		r.size -= len(p.Data)
		if p.Seq >= r.sent {
			r.dropped += int64(len(p.Data))
		}
		gone++
	}
	clear(r.pieces[:gone]) // until append moves the rest, it keeps the array
	r.pieces = r.pieces[gone:]
	r.first += int64(gone)
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// At returns the piece of that number, or the oldest one behind it when it is
// gone, and counts it as sent. ok is false when there is none yet.
func (r *Ring) At(seq int64) (p Piece, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := max(seq-r.first, 0)
	if i >= int64(len(r.pieces)) {
		return Piece{}, false
	}
	p = r.pieces[i]
	r.sent = max(r.sent, p.Seq+1)
	return p, true
}

// Next is the number that the next piece will have.
func (r *Ring) Next() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.first + int64(len(r.pieces))
}

// Dropped counts the bytes that were lost before they could be sent.
func (r *Ring) Dropped() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}

// Changed is closed at the next piece. Take it before looking with At.
func (r *Ring) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}
