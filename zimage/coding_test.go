// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func zipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestManifestOnTheWire: a manifest comes packed from whoever can do that, and
// what a mirror packs wrongly is its lie.
func TestManifestOnTheWire(t *testing.T) {
	s, m, id := converted(t, sample(t))
	name := "/manifests/" + strings.TrimPrefix(id, "sha256:") + ".json"
	right, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	altered := bytes.Replace(right, []byte(m.Verity.Root), []byte(strings.Repeat("0", 64)), 1)
	bomb := make([]byte, MaxManifest+1)
	coded := func(coding string, b []byte) twist {
		return func(n int, w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == name {
				if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") || !acceptsZstd(r.Header) {
					t.Errorf("asked with %q", r.Header.Get("Accept-Encoding"))
				}
				w.Header().Set("Content-Encoding", coding)
			}
			return answering(name, b)(n, w, r)
		}
	}
	for _, c := range []struct {
		name string
		how  twist
		most int // bytes on the wire, of 100 of the manifest
		want error
	}{
		{"zos's own mirror", nil, 65, nil},
		{"zstd", coded("zstd", enc.EncodeAll(right, nil)), 65, nil},
		{"gzip, spelt otherwise", coded("GZIP", zipped(t, right)), 65, nil},
		{"plain", coded("", right), 100, nil},
		{"plain, and says so", coded("identity", right), 100, nil},
		{"altered", coded("zstd", enc.EncodeAll(altered, nil)), 0, ErrMismatch},
		{"no zstd", coded("zstd", right), 0, ErrMismatch},
		{"no gzip", coded("gzip", right), 0, ErrMismatch},
		{"cut", coded("gzip", zipped(t, right)[:100]), 0, ErrMismatch},
		{"not asked for", coded("br", right), 0, ErrMismatch},
		{"a bomb of zstd", coded("zstd", enc.EncodeAll(bomb, nil)), 0, ErrMismatch},
		{"a bomb of gzip", coded("gzip", zipped(t, bomb)), 0, ErrMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serveStore(t, s, c.how)
			f, rep := fetcher(srv.URL)
			session, err := f.session()
			if err != nil {
				t.Fatal(err)
			}
			b, err := session.manifest(t.Context(), srv.URL, name[1:])
			if c.want == nil && (err != nil || !bytes.Equal(b, right)) {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
			if c.want != nil && c.name != "altered" && !errors.Is(err, c.want) { // it is not unpacked, whatever it would hash to
				t.Fatalf("%d bytes, %v, want %v", len(b), err, c.want)
			}
			if got := int(session.received()) * 100; c.want == nil && got > c.most*len(right) {
				t.Errorf("%d bytes were sent for a manifest of %d", got/100, len(right))
			}
			if _, err := f.Manifest(t.Context(), id); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if (c.want != nil) != (len(rep.errs[srv.URL]) == 1) {
				t.Errorf("reported: %v", rep.errs)
			}
		})
	}
}

// TestHandlerPacks: packed and plain are two representations of one file, which
// a cache on the way can tell apart.
func TestHandlerPacks(t *testing.T) {
	s, m, id := converted(t, sample(t))
	right, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	srv := serveStore(t, s, nil)
	tags := map[string]bool{}
	for _, c := range []struct {
		accept string
		coding string
	}{
		{"zstd", "zstd"},
		{"br, ZSTD;q=0.5", "zstd"},
		{"gzip", ""},
		{"zstd;q=0", ""},
		{"zstd; q=0.000", ""},
		{"zstd;q=0.1", "zstd"},
		{"identity", ""},
		{"xzstd", ""},
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+"/manifests/"+strings.TrimPrefix(id, "sha256:")+".json", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept-Encoding", c.accept)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			if err = errors.Join(err, resp.Body.Close()); err != nil {
				t.Fatal(err)
			}
			if method == http.MethodGet {
				if b, err = decode(resp.Header.Get("Content-Encoding"), b, MaxManifest); err != nil || !bytes.Equal(b, right) {
					t.Errorf("%q: %d bytes, %v", c.accept, len(b), err)
				}
			}
			if got := resp.Header.Get("Content-Encoding"); got != c.coding || resp.Header.Get("Vary") != "Accept-Encoding" || resp.ContentLength <= 0 {
				t.Errorf("%s, %q: coding %q, vary %q, %d bytes", method, c.accept, got, resp.Header.Get("Vary"), resp.ContentLength)
			}
			tags[c.coding+resp.Header.Get("ETag")] = true
		}
	}
	if len(tags) != 2 {
		t.Errorf("tags: %v", tags)
	}
	for tag := range tags {
		if other := strings.TrimPrefix(tag, "zstd"); tag != other && tags[other] {
			t.Errorf("both forms have the tag %s", other)
		}
	}
}
