// SPDX-License-Identifier: Apache-2.0

package flat

import "io"

const windowSize = 256 << 10

// window reads a spool in large pieces. Files are read in about the order in
// which layers bring them, and most are small. It is for one goroutine.
type window struct {
	of  io.ReaderAt
	off int64
	b   []byte // the bytes from off on
	buf []byte
}

// ReadAt implements io.ReaderAt.
func (w *window) ReadAt(b []byte, off int64) (int, error) {
	if len(b) >= windowSize {
		return w.of.ReadAt(b, off)
	}
	if off < w.off || off+int64(len(b)) > w.off+int64(len(w.b)) {
		if w.buf == nil {
			w.buf = make([]byte, windowSize)
		}
		n, err := w.of.ReadAt(w.buf, off)
		w.off, w.b = off, w.buf[:n]
		if n < len(b) {
			return copy(b, w.b), err
		}
	}
	return copy(b, w.b[off-w.off:]), nil
}
