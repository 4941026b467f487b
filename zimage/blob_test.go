// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// cutting sends only the first n bytes of an answer, then breaks off.
func cutting(path string, body []byte, n int) twist {
	return func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != path {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		if _, err := w.Write(body[:n]); err == nil {
			if err := http.NewResponseController(w).Flush(); err != nil {
				return true
			}
		}
		panic(http.ErrAbortHandler)
	}
}

func once(t twist) twist {
	done := false
	return func(n int, w http.ResponseWriter, r *http.Request) bool {
		if done {
			return false
		}
		done = true
		return t(n, w, r)
	}
}

func TestBlob(t *testing.T) {
	s := openTestStore(t)
	body := noise(300<<10, 1)
	file := filepath.Join(t.TempDir(), "kernel")
	put(t, file, body)
	digest, err := s.AddBlob(file)
	if err != nil || digest != digestOf(body) {
		t.Fatal(digest, err)
	}
	name := "/blobs/" + strings.TrimPrefix(digest, "sha256:")
	wrong := append(bytes.Clone(body[:len(body)-1]), body[len(body)-1]^1)
	ignoresRange := func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		if _, err := w.Write(body); err != nil {
			panic(http.ErrAbortHandler)
		}
		return true
	}
	for _, c := range []struct {
		name          string
		part          []byte // left of an earlier attempt
		first, second twist
		want          error
		reported      bool
		received      int64 // 0: do not look
	}{
		{name: "right", received: int64(len(body))},
		{name: "wrong at the only mirror", first: answering(name, wrong), want: ErrMismatch, reported: true},
		{name: "wrong at one of two", first: answering(name, wrong), second: dying(forever, forever), reported: true},
		{name: "missing", first: func(_ int, w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true }, want: ErrMissing, reported: true},
		{name: "breaks off, comes back", first: once(cutting(name, body, 100000)), received: int64(len(body))},
		{name: "breaks off, other goes on", first: cutting(name, body, 100000), second: dying(forever, forever), received: int64(len(body))},
		{name: "goes on where it stopped", part: body[:200000], received: int64(len(body) - 200000)},
		{name: "mirror knows no Range", part: body[:200000], first: ignoresRange, received: int64(len(body))},
		{name: "the part was wrong, the mirror is right", part: wrong[len(wrong)-100:], received: 0},
		{name: "the part is longer than the blob", part: append(bytes.Clone(body), 1)},
		{name: "the part was whole", part: body, received: 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := serveStore(t, s, c.first)
			f, rep := fetcher(first.URL)
			if c.second != nil {
				f.Mirrors = append(f.Mirrors, serveStore(t, s, c.second).URL)
			}
			path := filepath.Join(t.TempDir(), "kernel")
			if c.part != nil {
				put(t, path+".part", c.part)
			}
			n, err := f.Blob(t.Context(), digest, path)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if got := len(rep.errs[first.URL]) > 0; got != c.reported {
				t.Errorf("reported: %v", rep.errs)
			}
			mustExist(t, path, c.want == nil)
			if c.want != nil {
				return
			}
			if c.received != 0 && n != c.received {
				t.Errorf("received %d bytes, want %d", n, c.received)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, body) {
				t.Errorf("not the blob: %v", err)
			}
			mustExist(t, path+".part", false)
			// It is hashed again each time it is asked for.
			if n, err := f.Blob(t.Context(), digest, path); err != nil || n != 0 {
				t.Errorf("second time: %d %v", n, err)
			}
		})
	}
	if _, err := (&Fetcher{Mirrors: []string{"file:///etc"}}).Blob(t.Context(), digest, file+"2"); err == nil || !strings.Contains(err.Error(), "http") {
		t.Errorf("a mirror that is no web server: %v", err)
	}
	// A failing disk is nobody's fault but ours, and ends the attempt.
	f, rep := fetcher(serveStore(t, s, nil).URL)
	if _, err := f.Blob(t.Context(), digest, filepath.Join(t.TempDir(), "none", "kernel")); err == nil || len(rep.errs) > 0 {
		t.Errorf("no folder: %v, reported %v", err, rep.errs)
	}
}

// TestBlobHereIsNotBelieved alters a blob that was fetched before: what is on
// the node is hashed again and never used as it is.
func TestBlobHereIsNotBelieved(t *testing.T) {
	s := openTestStore(t)
	body := noise(100<<10, 2)
	file := filepath.Join(t.TempDir(), "kernel")
	put(t, file, body)
	digest, err := s.AddBlob(file)
	if err != nil {
		t.Fatal(err)
	}
	f, _ := fetcher(serveStore(t, s, nil).URL)
	path := filepath.Join(t.TempDir(), "kernel")
	if _, err := f.Blob(t.Context(), digest, path); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Clone(body)
	wrong[len(wrong)/2] ^= 1
	put(t, path, wrong)
	if _, err := f.Blob(t.Context(), digest, path); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, body) {
		t.Errorf("the altered file was taken as it was: %v", err)
	}
}

// TestBlobWithoutRoom: what does not fit is refused before it is written, whether
// a mirror announces it or just sends it, and the mirror is not blamed.
func TestBlobWithoutRoom(t *testing.T) {
	s := openTestStore(t)
	body := noise(300<<10, 3)
	file := filepath.Join(t.TempDir(), "kernel")
	put(t, file, body)
	digest, err := s.AddBlob(file)
	if err != nil {
		t.Fatal(err)
	}
	flooding := func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		if err := http.NewResponseController(w).Flush(); err != nil { // no length
			panic(http.ErrAbortHandler)
		}
		for range 64 {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		return true
	}
	for _, c := range []struct {
		name          string
		room          int64
		first, second twist
		fits          bool
	}{
		{"announced", 200 << 10, nil, nil, false},
		{"just enough", 300 << 10, nil, nil, true},
		{"sent without a length", 10 << 20, flooding, nil, false},
		{"more at one mirror than at the other", 300 << 10, func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", "900000000")
			if _, err := w.Write(body[:1]); err != nil {
				panic(http.ErrAbortHandler)
			}
			return true
		}, dying(forever, forever), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := serveStore(t, s, c.first)
			f, rep := fetcher(first.URL)
			if c.second != nil {
				f.Mirrors = append(f.Mirrors, serveStore(t, s, c.second).URL)
			}
			path := filepath.Join(t.TempDir(), "kernel")
			var granted, most int64
			_, err := f.BlobWithin(t.Context(), digest, path, func(n int64) error {
				info, err := os.Stat(path + ".part")
				if err != nil {
					t.Error(err)
				} else {
					most = max(most, info.Size())
				}
				if granted+n > c.room {
					return ErrNoRoom
				}
				granted += n
				return nil
			})
			if c.fits != (err == nil) || !c.fits && !errors.Is(err, ErrNoRoom) {
				t.Fatal(err)
			}
			mustExist(t, path, c.fits)
			if most > c.room {
				t.Errorf("%d bytes were written, there was room for %d", most, c.room)
			}
			if len(rep.errs) > 0 {
				t.Errorf("reported: %v", rep.errs)
			}
			if info, err := os.Stat(path + ".part"); !c.fits && (err != nil || info.Size() != 0) {
				t.Errorf("left behind: %v %v", info, err)
			}
		})
	}
}

// TestHandler holds that a mirror serves the store's names and nothing else.
func TestHandler(t *testing.T) {
	s, m, id := converted(t, sample(t))
	secret := filepath.Join(t.TempDir(), "secret")
	put(t, secret, []byte("secret"))
	zeros := strings.Repeat("0", 64)
	if err := os.Symlink(secret, filepath.Join(s.Dir(), "blobs", zeros)); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(s.Dir(), "private"), []byte("private"))
	if err := os.Mkdir(filepath.Join(s.Dir(), "starts"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(s.Dir(), "starts", id[7:]+".br"), []byte("pack"))
	srv := serveStore(t, s, nil)
	chunk := "/" + chunkName(m.Chunks[0].ID)
	hint, err := hintName(m.OCI.Manifest, "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	do := func(method, path, rang string) (*http.Response, []byte) {
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if rang != "" {
			req.Header.Set("Range", rang)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return resp, b
	}
	for _, c := range []struct {
		method, path string
		code         int
		cache        string
	}{
		{"GET", chunk, 200, "immutable"}, {"HEAD", chunk, 200, "immutable"},
		{"GET", "/manifests/" + id[7:] + ".json", 200, "immutable"},
		{"GET", "/" + hint, 200, "no-cache"},
		{"GET", "/starts/" + id[7:] + ".br", 200, "no-cache"}, {"GET", "/starts/" + id[7:], 404, ""}, {"GET", "/starts/" + zeros + ".br", 404, ""}, {"GET", "/starts/" + id[7:] + ".zst", 404, ""},
		{"POST", chunk, 405, ""}, {"PUT", chunk, 405, ""}, {"DELETE", chunk, 405, ""},
		{"GET", "/", 404, ""}, {"GET", "/private", 404, ""}, {"GET", "/chunks/", 404, ""}, {"GET", "/tmp/", 404, ""},
		{"GET", "/blobs/" + zeros, 500, ""}, // a symlink out of the folder
		{"GET", "/blobs/../private", 404, ""}, {"GET", "/blobs/%2e%2e/private", 404, ""}, {"GET", "/blobs/..%2fprivate", 404, ""},
		{"GET", "//" + chunk[1:], 404, ""}, {"GET", "/chunks/ff/" + m.Chunks[0].ID + ".zst", 404, ""},
		{"GET", strings.ToUpper(chunk), 404, ""}, {"GET", "/blobs/" + strings.Repeat("1", 64), 404, ""},
		{"GET", "/by-oci/" + zeros + "-linux-mips.json", 404, ""},
	} {
		resp, _ := do(c.method, c.path, "")
		if resp.StatusCode != c.code || !strings.Contains(resp.Header.Get("Cache-Control"), c.cache) {
			t.Errorf("%s %s: %s, %q", c.method, c.path, resp.Status, resp.Header.Get("Cache-Control"))
		}
	}
	_, all := do("GET", chunk, "")
	resp, some := do("GET", chunk, "bytes=3-9")
	if resp.StatusCode != http.StatusPartialContent || !bytes.Equal(some, all[3:10]) {
		t.Errorf("range: %s", resp.Status)
	}
}
