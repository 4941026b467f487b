// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// mirror is a test mirror: a store, with a chance to answer otherwise.
type mirror struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string
}

// twist answers a request itself and says so, or leaves it to the store. n
// counts the requests to the mirror from 1.
type twist func(n int, w http.ResponseWriter, r *http.Request) bool

func serveStore(t testing.TB, s *Store, special twist) *mirror {
	t.Helper()
	m := &mirror{}
	h := Handler(s)
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		m.asked = append(m.asked, r.URL.Path)
		n := len(m.asked)
		m.mu.Unlock()
		if special == nil || !special(n, w, r) {
			h.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *mirror) count(prefix string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, path := range m.asked {
		if strings.HasPrefix(path, prefix) {
			n++
		}
	}
	return n
}

// answering gives other bytes to requests for one path.
func answering(path string, body []byte) twist {
	return func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != path {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		if _, err := w.Write(body); err != nil {
			panic(http.ErrAbortHandler)
		}
		return true
	}
}

// dying breaks the connection of every request from the nth to the last.
func dying(first, last int) twist {
	return func(n int, _ http.ResponseWriter, _ *http.Request) bool {
		if n >= first && n <= last {
			panic(http.ErrAbortHandler)
		}
		return false
	}
}

const forever = 1 << 30

// told collects what a Fetcher reports.
type told struct {
	mu   sync.Mutex
	errs map[string][]error
}

func fetcher(urls ...string) (*Fetcher, *told) {
	rep := &told{errs: map[string][]error{}}
	return &Fetcher{Mirrors: urls, Report: func(mirror, _ string, err error) {
		rep.mu.Lock()
		defer rep.mu.Unlock()
		rep.errs[mirror] = append(rep.errs[mirror], err)
	}}, rep
}

func mustExist(t *testing.T, path string, want bool) {
	t.Helper()
	if _, err := os.Lstat(path); (err == nil) != want {
		t.Errorf("%s: %v", filepath.Base(path), err)
	}
}

// TestImage walks the ways in which mirrors fail. Each case fetches one image
// from one or two mirrors of the same store.
func TestImage(t *testing.T) {
	s, m, id := converted(t, sample(t))
	disk := assemble(t, s, m)
	victim := m.Chunks[3]
	at := "/" + chunkName(victim.ID)
	other := m.Chunks[4]
	wireOfOther, err := s.read(chunkName(other.ID), maxWire)
	if err != nil {
		t.Fatal(err)
	}
	bomb := s.codec.enc.EncodeAll(make([]byte, 512<<20), nil)
	missing := func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == at {
			http.NotFound(w, r)
		}
		return r.URL.Path == at
	}
	for _, c := range []struct {
		name     string
		first    twist
		second   twist
		only     bool // no second mirror
		want     error
		reported error // of the first mirror
	}{
		{"all is well", nil, nil, true, nil, nil},
		{"chunk is another one, only mirror", answering(at, wireOfOther), nil, true, ErrMismatch, ErrMismatch},
		{"chunk is another one, second mirror is right", answering(at, wireOfOther), nil, false, nil, ErrMismatch},
		{"chunk is no zstd", answering(at, []byte("no zstd")), nil, false, nil, ErrMismatch},
		{"chunk is a bomb", answering(at, bomb), nil, true, ErrMismatch, ErrMismatch},
		{"chunk has no end", answering(at, make([]byte, maxWire+1)), nil, true, ErrMismatch, ErrMismatch},
		{"chunk is shorter", answering(at, s.codec.pack(disk[victim.Off:][:victim.Size-1])), nil, true, ErrMismatch, ErrMismatch},
		{"chunk is missing, only mirror", missing, nil, true, ErrMissing, ErrMissing},
		{"chunk is missing, second mirror has it", missing, nil, false, nil, ErrMissing},
		{"wrong on both", answering(at, wireOfOther), answering(at, wireOfOther), false, ErrMismatch, ErrMismatch},
		{"dies in the middle, second goes on", dying(5, forever), nil, false, nil, nil},
		{"dies in the middle, comes back", dying(5, 9), nil, true, nil, nil},
		{"one lies, the other comes back", answering(at, wireOfOther), dying(1, 2), false, nil, ErrMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := serveStore(t, s, c.first)
			urls := []string{first.URL}
			if !c.only {
				urls = append(urls, serveStore(t, s, c.second).URL)
			}
			f, rep := fetcher(urls...)
			path := filepath.Join(t.TempDir(), "disk")
			n, err := f.Image(t.Context(), m, id, path)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if got := rep.errs[first.URL]; (len(got) > 0) != (c.reported != nil) || len(got) > 0 && !errors.Is(got[0], c.reported) {
				t.Errorf("reported of the first mirror: %v, want %v", got, c.reported)
			}
			mustExist(t, path, c.want == nil)
			if c.want != nil {
				// Whatever is in the part is from the image.
				part, err := os.ReadFile(path + ".part")
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range m.Chunks {
					if b := part[c.Off:][:c.Size]; !bytes.Equal(b, disk[c.Off:][:c.Size]) && !bytes.Equal(b, make([]byte, c.Size)) {
						t.Errorf("the part has foreign bytes at %d", c.Off)
					}
				}
				return
			}
			mustExist(t, path+".part", false)
			mustExist(t, path+".have", false)
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, disk) || n == 0 {
				t.Errorf("the disk is not the image: %v, %d bytes received", err, n)
			}
		})
	}
}

// TestImageResumes stops a download and goes on with it, with a part and a
// state that somebody has been at.
func TestImageResumes(t *testing.T) {
	s, m, id := converted(t, sample(t))
	for _, c := range []struct {
		name   string
		tamper func(t *testing.T, path string)
		again  int // of the chunks fetched first, how many are fetched once more
	}{
		{"untouched", func(*testing.T, string) {}, 0},
		{"one byte of the part altered", func(t *testing.T, path string) { flip(t, path+".part", m.Chunks[0].Off+9) }, 1},
		{"state says everything is there", func(t *testing.T, path string) { put(t, path+".have", bytes.Repeat([]byte{255}, (len(m.Chunks)+7)/8)) }, 0},
		{"state is of another length", func(t *testing.T, path string) { put(t, path+".have", []byte("x")) }, 8},
		{"state is gone", func(t *testing.T, path string) { remove(t, path+".have") }, 8},
		{"part is gone", func(t *testing.T, path string) { remove(t, path+".part") }, 8},
		{"part is cut off", func(t *testing.T, path string) { truncate(t, path+".part", 1) }, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			// One download at a time, eight in all, then the node is stopped.
			dead := serveStore(t, s, func(n int, _ http.ResponseWriter, _ *http.Request) bool {
				if n > 8 {
					cancel()
					panic(http.ErrAbortHandler)
				}
				return false
			})
			f, _ := fetcher(dead.URL)
			path := filepath.Join(t.TempDir(), "disk")
			if _, err := f.Image(ctx, m, id, path); !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.Canceled) {
				t.Fatalf("stopped download: %v", err)
			}
			have, err := os.ReadFile(path + ".have")
			if err != nil {
				t.Fatal(err)
			}
			got := 0
			for i := range m.Chunks {
				got += int(have[i/8] >> (i % 8) & 1)
			}
			if got == 0 || got > 8 {
				t.Fatalf("%d chunks before the stop", got)
			}
			c.tamper(t, path)
			alive := serveStore(t, s, nil)
			f, _ = fetcher(alive.URL)
			if _, err := f.Image(t.Context(), m, id, path); err != nil {
				t.Fatal(err)
			}
			if err := VerifyImage(path, m); err != nil {
				t.Error(err)
			}
			again := min(c.again, got)
			if c.again == 1 && have[0]&1 == 0 {
				again = 0 // the altered chunk had not come yet
			}
			if n := alive.count("/chunks/"); n != len(m.Chunks)-got+again {
				t.Errorf("%d of %d chunks were there, %d fetched, %d of them again", got, len(m.Chunks), n, again)
			}
		})
	}
}

// TestImageIsCheckedAgain: what is on the disk is no more believed than a mirror.
func TestImageIsCheckedAgain(t *testing.T) {
	s, m, id := converted(t, sample(t))
	srv := serveStore(t, s, nil)
	f, _ := fetcher(srv.URL)
	path := filepath.Join(t.TempDir(), "disk")
	if _, err := f.Image(t.Context(), m, id, path); err != nil {
		t.Fatal(err)
	}
	before := srv.count("/")
	if n, err := f.Image(t.Context(), m, id, path); err != nil || n != 0 || srv.count("/") != before {
		t.Errorf("a whole image: %v, %d bytes, %d requests", err, n, srv.count("/")-before)
	}
	flip(t, path, m.DiskSize/2)
	if n, err := f.Image(t.Context(), m, id, path); err != nil || n == 0 || srv.count("/") != before+1 {
		t.Errorf("an altered image: %v, %d bytes, %d requests, want the one chunk", err, n, srv.count("/")-before)
	}
	if err := VerifyImage(path, m); err != nil {
		t.Error(err)
	}
	if _, err := f.Image(t.Context(), m, "sha256:"+strings.Repeat("0", 64), path); !errors.Is(err, ErrMismatch) {
		t.Errorf("another image's id: %v", err)
	}
}

func TestManifest(t *testing.T) {
	s, want, id := converted(t, sample(t))
	name := "/manifests/" + strings.TrimPrefix(id, "sha256:") + ".json"
	right, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	altered := bytes.Replace(right, []byte(want.Verity.Root), []byte(strings.Repeat("0", 64)), 1)
	for _, c := range []struct {
		name  string
		first twist
		both  bool
		want  error
	}{
		{"right", nil, false, nil},
		{"altered at the only mirror", answering(name, altered), false, ErrMismatch},
		{"altered at one of two", answering(name, altered), true, nil},
		{"another form of the same", answering(name, append([]byte(" "), right...)), false, ErrMismatch},
		{"none", answering("/x", nil), false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := serveStore(t, s, c.first)
			f, rep := fetcher(first.URL)
			if c.both {
				f.Mirrors = append(f.Mirrors, serveStore(t, s, nil).URL)
			}
			m, err := f.Manifest(t.Context(), id)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil && m.Verity.Root != want.Verity.Root {
				t.Errorf("root is %s", m.Verity.Root)
			}
			if (c.want != nil || c.both) != (len(rep.errs[first.URL]) == 1) {
				t.Errorf("reported: %v", rep.errs)
			}
		})
	}
	f, _ := fetcher(serveStore(t, s, nil).URL)
	if _, err := f.Manifest(t.Context(), "sha256:"+strings.Repeat("0", 64)); !errors.Is(err, ErrMissing) {
		t.Errorf("an unknown id: %v", err)
	}
	f.Mirrors = nil
	if _, err := f.Manifest(t.Context(), id); !errors.Is(err, ErrUnreachable) {
		t.Errorf("no mirror: %v", err)
	}
	h, err := s.Hint(want.OCI.Manifest, want.OCI.Platform)
	f, _ = fetcher(serveStore(t, s, nil).URL)
	if got, err2 := f.Hint(t.Context(), want.OCI.Manifest, want.OCI.Platform); err != nil || err2 != nil || got != h || h.ID != id {
		t.Errorf("hint: %v %v %v %v", h, got, err, err2)
	}
	if m, err := f.Verify(t.Context(), id, nil); err != nil || m.Verity != want.Verity {
		t.Errorf("verify at the mirror: %v", err)
	}
}

// TestUnreachable: without an answer the Fetcher waits until its context ends.
func TestUnreachable(t *testing.T) {
	s, _, id := converted(t, sample(t))
	ctx, cancel := context.WithCancel(t.Context())
	srv := serveStore(t, s, func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 2 {
			cancel()
		}
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return true
	})
	f, rep := fetcher(srv.URL)
	if _, err := f.Manifest(ctx, id); !errors.Is(err, ErrUnreachable) || len(rep.errs) != 0 {
		t.Errorf("%v, reported %v", err, rep.errs)
	}
}

// TestSameChunkTwice: what stands in an image twice is fetched once, also when one of
// its places is here already.
func TestSameChunkTwice(t *testing.T) {
	twice := noise(3*MaxChunk, 5)
	s, m, id := converted(t, ociImage(t, []item{file("a", twice), file("b", noise(70000, 6)), file("c", twice)}))
	ids := map[string]bool{}
	for _, c := range m.Chunks {
		ids[c.ID] = true
	}
	if len(ids) > len(m.Chunks)-3 {
		t.Fatalf("%d chunks, %d different ones: nothing stands in it twice", len(m.Chunks), len(ids))
	}
	disk := assemble(t, s, m)
	for _, here := range []int64{0, m.DiskSize / 2} { // bytes that an earlier attempt left
		mirror := serveStore(t, s, nil)
		f, _ := fetcher(mirror.URL)
		path := filepath.Join(t.TempDir(), "disk")
		part, state := PartNames(path)
		have := make([]bool, len(m.Chunks))
		lacking := map[string]bool{}
		for i, c := range m.Chunks {
			if have[i] = c.Off+c.Size <= here; !have[i] {
				lacking[c.ID] = true
			}
		}
		if err := errors.Join(os.WriteFile(part, disk[:here], 0o600), os.WriteFile(state, PackHave(have), 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Image(t.Context(), m, id, path); err != nil {
			t.Fatal(err)
		}
		if n := mirror.count("/chunks/"); n != len(lacking) {
			t.Errorf("%d chunks were asked for, want %d", n, len(lacking))
		}
		if err := VerifyImage(path, m); err != nil {
			t.Error(err)
		}
	}
}
