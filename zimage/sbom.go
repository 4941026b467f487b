// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// MaxSBOM is the largest SPDX document: of about 50,000 packages. Whoever reads
// one holds it in memory.
const MaxSBOM = 32 << 20

// ErrIncomplete means that an image lacks a shared object that it needs, or
// that not all that is in it is known, where the conversion was to be strict.
var ErrIncomplete = errors.New("image is incomplete")

// SBOM gives the SPDX document of an image in the store.
func (s *Store) SBOM(m Manifest) ([]byte, error) {
	h, err := hexOf(m.SBOM)
	if err != nil {
		return nil, err
	}
	b, err := s.read("blobs/"+h, MaxSBOM)
	if err != nil {
		return nil, err
	}
	return b, checkSBOM(b, m)
}

// SBOM gets the SPDX document of an image from the mirrors.
func (f *Fetcher) SBOM(ctx context.Context, m Manifest) ([]byte, error) {
	s, err := f.session()
	if err != nil {
		return nil, err
	}
	h, err := hexOf(m.SBOM)
	if err != nil {
		return nil, err
	}
	return s.race(ctx, "SPDX document "+m.SBOM, 0, func(ctx context.Context, mirror string) ([]byte, error) {
		b, err := s.small(ctx, mirror, "blobs/"+h, MaxSBOM)
		if err != nil {
			return nil, err
		}
		return b, checkSBOM(b, m)
	})
}

func checkSBOM(b []byte, m Manifest) error {
	if got := digestOf(b); got != m.SBOM {
		return fmt.Errorf("SPDX document %s: %w: hashes to %s", m.SBOM, ErrMismatch, got)
	}
	return nil
}

// putSBOM adds an SPDX document, as putChunk a chunk.
func (s *Store) putSBOM(digest string, r io.Reader) error {
	if err := s.placeFrom("blobs/"+strings.TrimPrefix(digest, "sha256:"), r); err != nil {
		return fmt.Errorf("store SPDX document: %w", err)
	}
	return nil
}
