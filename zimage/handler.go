// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// Handler serves a store as a mirror: plain files, GET and HEAD, with Range.
// It serves the names of the store's layout and nothing else. A manifest is
// packed on its way for whoever accepts zstd.
func Handler(s *Store) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "a mirror is read only", http.StatusMethodNotAllowed)
			return
		}
		name := strings.TrimPrefix(r.URL.Path, "/")
		kind := servable(name)
		if kind == "" {
			http.Error(w, "no such name in a mirror", http.StatusNotFound)
			return
		}
		// A Root keeps a symlink in the folder from leading out of it.
		root, err := os.OpenRoot(s.dir)
		if err != nil {
			http.Error(w, "the store cannot be read", http.StatusInternalServerError)
			return
		}
		defer root.Close() // was only read: nothing can be lost
		f, err := root.Open(name)
		if isMissing(err) {
			http.Error(w, "not in this mirror", http.StatusNotFound)
			return
		}
		if err != nil {
			http.Error(w, "the store cannot be read", http.StatusInternalServerError)
			return
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil || !info.Mode().IsRegular() {
			http.Error(w, "not in this mirror", http.StatusNotFound)
			return
		}
		h.Set("Content-Type", kind)
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		// The names whose content may change: with Format, and with a newer start.
		if strings.HasPrefix(name, "by-oci/") || strings.HasPrefix(name, "starts/") {
			h.Set("Cache-Control", "no-cache")
		} else {
			h.Set("ETag", `"`+name[strings.LastIndex(name, "/")+1:]+`"`)
		}
		var body io.ReadSeeker = f
		if strings.HasPrefix(name, "manifests/") {
			h.Set("Vary", "Accept-Encoding")
			if acceptsZstd(r.Header) && info.Size() <= MaxManifest {
				plain, err := io.ReadAll(io.LimitReader(f, MaxManifest))
				if err != nil {
					http.Error(w, "the store cannot be read", http.StatusInternalServerError)
					return
				}
				wire := s.codec.pack(plain)
				h.Set("Content-Encoding", zstdCoding)
				h.Set("Content-Length", strconv.Itoa(len(wire)))
				h.Set("ETag", strings.TrimSuffix(h.Get("ETag"), `"`)+`-zstd"`) // other bytes, another tag
				body = bytes.NewReader(wire)
			}
		}
		http.ServeContent(w, r, "", info.ModTime(), body)
	})
}

// servable gives the content type of a name that may be served, else "".
func servable(name string) string {
	parts := strings.Split(name, "/")
	switch {
	case len(parts) == 3 && parts[0] == "chunks":
		id, ok := strings.CutSuffix(parts[2], ".zst")
		if ok && isHex(id) && parts[1] == id[:2] {
			return "application/zstd"
		}
	case len(parts) == 2 && parts[0] == "manifests":
		if id, ok := strings.CutSuffix(parts[1], ".json"); ok && isHex(id) {
			return "application/json"
		}
	case len(parts) == 2 && parts[0] == "starts":
		if id, ok := strings.CutSuffix(parts[1], ".br"); ok && isHex(id) {
			return "application/octet-stream" // Brotli has no type of its own
		}
	case len(parts) == 2 && parts[0] == "blobs":
		if isHex(parts[1]) {
			return "application/octet-stream"
		}
	case len(parts) == 2 && parts[0] == "by-oci":
		id, platform, ok := strings.Cut(strings.TrimSuffix(parts[1], ".json"), "-")
		if ok && isHex(id) && strings.HasSuffix(parts[1], ".json") && checkPlatform(strings.Replace(platform, "-", "/", 1)) == nil {
			return "application/json"
		}
	}
	return ""
}
