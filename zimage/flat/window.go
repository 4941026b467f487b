// SPDX-License-Identifier: Apache-2.0

package flat

import (
	"errors"
	"io"
)

const (
	leastWindow = 8 << 10
	mostWindow  = 256 << 10
	wholeReads  = 64 << 10 // from here on a read gains nothing from a window
)

// window reads a spool ahead. Most files are small, and are read in about the
// order in which one layer brought them; but those of several layers lie
// apart. So what is read ahead doubles while reads go forward, and is little
// after a jump. It is for one goroutine.
type window struct {
	of   io.ReaderAt
	off  int64
	b    []byte // the bytes from off on
	buf  []byte
	size int
	// layer is which one brought the bytes, where that does not follow from
	// where they lie in the spool.
	layer int
	// failed is the first error of reading. The end of what there is, is none.
	failed error
}

// ReadAt implements io.ReaderAt.
func (w *window) ReadAt(b []byte, off int64) (int, error) {
	if len(b) >= wholeReads {
		n, err := w.of.ReadAt(b, off)
		return n, w.keep(n < len(b), err)
	}
	end := w.off + int64(len(w.b))
	if off < w.off || off+int64(len(b)) > end {
		if w.buf == nil {
			w.buf = make([]byte, mostWindow)
		}
		if off >= w.off && off-end < leastWindow {
			w.size = min(2*max(w.size, leastWindow), mostWindow)
		} else {
			w.size = leastWindow
		}
		n, err := w.of.ReadAt(w.buf[:max(w.size, len(b))], off)
		w.off, w.b = off, w.buf[:n]
		if n < len(b) {
			return copy(b, w.b), w.keep(true, err)
		}
	}
	return copy(b, w.b[off-w.off:]), nil
}

// keep keeps an error of a read that was short.
func (w *window) keep(short bool, err error) error {
	if short && w.failed == nil && !errors.Is(err, io.EOF) {
		w.failed = err
	}
	return err
}
