// SPDX-License-Identifier: Apache-2.0

package flat

import (
	"archive/tar"
	"fmt"
	"io"

	"github.com/zos-node/zos/zimage/erofs"
)

// store copies a file's content to the spool, or finds where it lies.
func (t *Tree) store(f *erofs.Node, h *tar.Header, r io.Reader) error {
	if t.left.Bytes -= h.Size; t.left.Bytes < 0 || t.spent+h.Size > t.bound {
		return fmt.Errorf("%w: bytes of files: %d more than %d", ErrLimit, t.spent+h.Size, t.bound)
	}
	if t.lies != nil && !sparse(h) {
		if h.Size > t.lies.size-t.lies.off {
			return fmt.Errorf("%w: read file: %w", ErrLayer, io.ErrUnexpectedEOF)
		}
		f.Data, f.Off, f.Size = t.lies.contents, t.lies.off, h.Size
		t.spent += h.Size
		return nil
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{t.out}, struct{ io.Reader }{r}, t.buf)
	if err == nil && n != h.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		if here := t.fault(); here != nil {
			return here
		}
		return fmt.Errorf("%w: read file: %w", ErrLayer, err)
	}
	f.Data, f.Off, f.Size = t.read, t.spooled, n
	t.spent, t.spooled = t.spent+n, t.spooled+n
	return nil
}

// fault is what failed on this machine while a layer was read: no layer is to
// blame for a disk that is full or fails. A stream that cannot be read is its
// reader's to tell of.
func (t *Tree) fault() error {
	if _, err := t.out.Write(nil); err != nil { // what failed once, the writer repeats
		return fmt.Errorf("write spool: %w", err)
	}
	if t.lies != nil && t.lies.headers.failed != nil {
		return fmt.Errorf("read the file of the layer: %w", t.lies.headers.failed)
	}
	return nil
}

// Err is the first failure to read contents back, if there was one, or to follow
// symlinks: who looks into the tree may have taken it for a file that says nothing.
func (t *Tree) Err() error {
	if t.steps < 0 {
		return fmt.Errorf("%w: symlinks on the way to files", ErrLimit)
	}
	for _, w := range t.windows {
		if w.failed != nil {
			return fmt.Errorf("read contents back: %w", w.failed)
		}
	}
	return nil
}
