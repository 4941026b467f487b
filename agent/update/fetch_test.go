// SPDX-License-Identifier: Apache-2.0

package update

import (
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/zimage"
)

// mirror serves a store of its own with one image, bound by chunks, once after
// is closed.
func mirror(t *testing.T, body []byte, after <-chan struct{}) (url, dir, digest, list string) {
	t.Helper()
	dir = t.TempDir()
	s, err := zimage.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "node.uki")
	if err := os.WriteFile(name, body, 0o600); err != nil {
		t.Fatal(err)
	}
	if digest, list, err = s.AddBlobInChunks(name); err != nil {
		t.Fatal(err)
	}
	h := zimage.Handler(s)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-after:
			h.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, dir, digest, list
}

// alter flips a bit of a file that a mirror serves.
func alter(t *testing.T, dir, digest string, at int) {
	t.Helper()
	name := filepath.Join(dir, "blobs", strings.TrimPrefix(digest, "sha256:"))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestByChunks: a node takes an image of which one mirror has an altered chunk,
// and reports that mirror; with no other mirror it stays what it is, keeps the
// good chunks, and asks only for the rest once the mirror is right.
func TestByChunks(t *testing.T) {
	const kernel = 2_000_000
	for _, only := range []bool{false, true} {
		r := newRig(t)
		body := uki("1.1", kernel)
		at, said := make(chan struct{}), make(chan struct{})
		close(at)
		bad, badDir, digest, list := mirror(t, body, at)
		good, _, _, _ := mirror(t, body, said) // or a slow machine asks it too soon
		alter(t, badDir, digest, len(body)-1)  // in a chunk that is begun when others are done
		urls := []string{bad}
		if !only {
			urls = append(urls, good)
		}
		open := sync.OnceFunc(func() { close(said) })
		var mu sync.Mutex
		reported := map[string]error{}
		report := func(mirror, _ string, err error) {
			mu.Lock()
			defer mu.Unlock()
			if reported[mirror] = err; mirror == bad {
				open()
			}
		}
		var room []int64
		kept := filepath.Join(t.TempDir(), "image")
		r.get = func(target *ledger.Target, path string) error {
			if target.Chunks != list {
				t.Errorf("the node was told of list %q", target.Chunks)
			}
			f := zimage.Fetcher{Mirrors: urls, Report: report}
			err := Fetch(t.Context(), &f, target, kept, Room(target.Image.Size, func(n int64) error { room = append(room, n); return nil }))
			if err == nil {
				err = os.Rename(kept, path)
			}
			return err
		}
		r.images["1.1"] = body
		p := r.log.Release("1.1", board)
		p.Images[0].Digest, p.Images[0].Size = digest, int64(len(body))
		chunked := ledgertest.Chunked(p, func(ledger.ReleaseImage) string { return list })
		r.rollout(r.log.Must(r.log.Sign(ledger.TypeChunkedRelease, chunked, "release")), "1.1", nil)
		want := map[bool]string{false: "1.1", true: "1.0"}[only]
		if got := r.settle(); got != want {
			t.Errorf("runs %s, want %s", got, want)
		}
		if err := reported[bad]; !errors.Is(err, zimage.ErrMismatch) || len(reported) != 1 {
			t.Errorf("reported: %v", reported)
		}
		if !only {
			continue
		}
		clear(reported)
		alter(t, badDir, digest, len(body)-1) // back
		first := len(room)
		r.clock.After(retryMax)
		if got := r.settle(); got != "1.1" {
			t.Errorf("runs %s once the mirror is right", got)
		}
		if n := len(room); n <= first || room[0] != int64(len(body)) || room[n-1] >= int64(len(body))/2 {
			t.Errorf("room was asked for as %v: the good chunks were not kept", room)
		}
		if len(reported) > 0 {
			t.Errorf("reported: %v", slices.Collect(maps.Keys(reported)))
		}
	}
}

// TestListOfAnother: a release whose list is not of its image is failed for good.
func TestListOfAnother(t *testing.T) {
	r := newRig(t)
	at := make(chan struct{})
	close(at)
	url, dir, digest, _ := mirror(t, uki("1.1", 90_000), at)
	s, err := zimage.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "other.uki")
	if err := os.WriteFile(name, uki("1.2", 90_000), 0o600); err != nil {
		t.Fatal(err)
	}
	_, list, err := s.AddBlobInChunks(name)
	if err != nil {
		t.Fatal(err)
	}
	r.get = func(target *ledger.Target, path string) error {
		f := zimage.Fetcher{Mirrors: []string{url}, HTTP: http.DefaultClient}
		return Fetch(t.Context(), &f, target, path, func(int64) error { return nil })
	}
	p := r.log.Release("1.1", board)
	p.Images[0].Digest, p.Images[0].Size = digest, int64(len(uki("1.1", 90_000)))
	id := r.rollout(r.log.Must(r.log.Sign(ledger.TypeChunkedRelease, ledgertest.Chunked(p, func(ledger.ReleaseImage) string { return list }), "release")), "1.1", nil)
	if got := r.settle(); got != "1.0" {
		t.Fatal(got)
	}
	if u := r.log.State().Updated(id, "edge"); u == nil || u.Result != ledger.UpdateFailed || !strings.Contains(u.Reason, "list of chunks") {
		t.Errorf("the ledger has %+v", u)
	}
}
