// SPDX-License-Identifier: Apache-2.0

package flat

import (
	"archive/tar"
	"errors"
	"io"
	"strings"
)

// placed reads the headers of a tar that lies in a file, and knows where it
// is: the tar reader reads no further than a header, and seeks over what
// nobody has read.
type placed struct {
	headers  window
	contents *window // apart, so that both read ahead from where they are
	off      int64
	size     int64
}

// Read implements io.Reader.
func (p *placed) Read(b []byte) (int, error) {
	b = b[:min(int64(len(b)), max(p.size-p.off, 0))]
	if len(b) == 0 {
		return 0, io.EOF
	}
	n, err := p.headers.ReadAt(b, p.off)
	p.off += int64(n)
	return n, err
}

// Seek implements io.Seeker, as far as the tar reader needs it: forward, and
// not beyond the end, whatever size a header claims.
func (p *placed) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || offset < 0 {
		return 0, errors.ErrUnsupported
	}
	p.off += min(offset, max(p.size-p.off, 0))
	return p.off, nil
}

// sparse says whether a file's bytes do not lie in the tar as they are in the
// file. The tar reader tells the second kind, of PAX, only by these records.
func sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}
