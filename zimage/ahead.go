// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"io"
	"sync"
)

const (
	aheadPiece  = 256 << 10
	aheadPieces = 4
)

// ahead reads from another reader in a goroutine of its own, so that
// unpacking a layer and what is done with it use two processors.
type ahead struct {
	pieces chan piece
	free   chan []byte
	quit   chan struct{}
	done   sync.WaitGroup
	now    piece
	rest   []byte
}

type piece struct {
	b   []byte
	n   int
	err error
}

// newAhead starts to read. r must not be used by others until stop has
// returned.
func newAhead(r io.Reader) *ahead {
	a := &ahead{pieces: make(chan piece, aheadPieces), free: make(chan []byte, aheadPieces), quit: make(chan struct{})}
	for range aheadPieces {
		a.free <- make([]byte, aheadPiece)
	}
	a.done.Go(func() {
		for {
			var p piece
			select {
			case p.b = <-a.free:
			case <-a.quit:
				return
			}
			for p.n < len(p.b) && p.err == nil {
				var n int
				n, p.err = r.Read(p.b[p.n:])
				p.n += n
			}
			a.pieces <- p // has room for every buffer
			if p.err != nil {
				return
			}
		}
	})
	return a
}

func (a *ahead) Read(b []byte) (int, error) {
	for len(a.rest) == 0 {
		switch {
		case a.now.err != nil:
			return 0, a.now.err
		case a.now.b != nil:
			a.free <- a.now.b
		}
		a.now = <-a.pieces
		a.rest = a.now.b[:a.now.n]
	}
	n := copy(b, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// stop ends the goroutine; what it has read further is lost.
func (a *ahead) stop() {
	close(a.quit)
	a.done.Wait()
}
