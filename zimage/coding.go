// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// A manifest is mostly hexadecimal digits, and a start waits for it: it may be
// packed on its way, as a content coding of HTTP (RFC 9110, section 8.4), which
// costs no request of its own and which any mirror may leave out. What else a
// mirror sends is packed already.
const (
	zstdCoding = "zstd" // RFC 8878
	gzipCoding = "gzip" // what most web servers have
	// manifestCodings are accepted; a server that knows none sends it plain.
	manifestCodings = zstdCoding + ", " + gzipCoding
)

// manifest gets a manifest of a mirror, in any of the codings. What was sent
// counts, not what comes of it.
func (s *session) manifest(ctx context.Context, mirror, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.ask(ctx, mirror, name, "", manifestCodings)
	if err != nil {
		return nil, err
	}
	coding := resp.Header.Get("Content-Encoding")
	b, err := s.body(resp, MaxManifest)
	if err != nil {
		return nil, err
	}
	return decode(coding, b, MaxManifest)
}

// decode undoes a content coding. What is no such thing, or comes to more than
// limit bytes, is an ErrMismatch.
func decode(coding string, b []byte, limit int64) ([]byte, error) {
	var r io.Reader
	switch strings.ToLower(coding) {
	case "", "identity":
		return b, nil
	case zstdCoding:
		z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(limit)))
		if err != nil {
			return nil, fmt.Errorf("zstd decoder: %w", err)
		}
		defer z.Close()
		r = z
	case gzipCoding:
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("%w: gzip: %w", ErrMismatch, err)
		}
		r = z
	default:
		return nil, fmt.Errorf("%w: it is packed with %q, asked for was %s", ErrMismatch, coding, manifestCodings)
	}
	out, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrMismatch, coding, err)
	case int64(len(out)) > limit:
		return nil, fmt.Errorf("%w: comes to more than %d bytes", ErrMismatch, limit)
	}
	return out, nil
}

// acceptsZstd says whether a request asks for that coding.
func acceptsZstd(h http.Header) bool {
	for _, line := range h.Values("Accept-Encoding") {
		for one := range strings.SplitSeq(line, ",") {
			name, weight, _ := strings.Cut(one, ";")
			if strings.EqualFold(strings.TrimSpace(name), zstdCoding) {
				return !refuses(weight)
			}
		}
	}
	return false
}

// refuses reads a weight, of which zero is a refusal: "q=0", "q=0.000".
func refuses(weight string) bool {
	q, ok := strings.CutPrefix(strings.ReplaceAll(weight, " ", ""), "q=0")
	return ok && strings.Trim(q, ".0") == ""
}
