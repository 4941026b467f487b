// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/publish"
	"github.com/zos-node/zos/zimage/zimagetest"
)

func (s *server) open(t *testing.T, ref, secret string) *Bucket {
	t.Helper()
	b, err := Open(ref, func(name string) string {
		return map[string]string{"AWS_ENDPOINT_URL": s.url, "AWS_ACCESS_KEY_ID": testKey, "AWS_SECRET_ACCESS_KEY": secret}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPublish: an image goes to a server that checks signatures, only what is
// missing, and a node gets it from there.
func TestPublish(t *testing.T) {
	s := start(t)
	store, err := zimage.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m, id, err := zimage.Convert(t.Context(), zimagetest.Image(t, map[string]int{"big": 1 << 20, "a/small": 3000}), "linux/amd64", store, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := s.open(t, "s3://images/zos/v1/", testSecret)
	s.busy = 2
	r, err := publish.Image(t.Context(), store, id, b, nil)
	if err != nil || int(r.Sent) != len(m.Chunks)+3 {
		t.Fatalf("%+v %v", r, err)
	}
	f := zimage.Fetcher{Mirrors: []string{s.public + "/images/zos/v1"}}
	if _, err := f.Verify(t.Context(), id, nil); err != nil {
		t.Errorf("the bucket as a mirror: %v", err)
	}
	before := s.requests[http.MethodPut]
	if r, err = publish.Image(t.Context(), store, id, b, nil); err != nil || r.Sent != 0 || s.requests[http.MethodPut] != before {
		t.Errorf("again: %+v %v, %d requests more", r, err, s.requests[http.MethodPut]-before)
	}
	// A chunk with other bytes, and one that was cut.
	for i, cut := range []int64{0, 1} {
		good, err := store.ChunkObject(m.Chunks[i])
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Repeat([]byte{7}, int(good.Size-cut))
		good.Size, good.Sum, good.Body = int64(len(bad)), sha256.Sum256(bad), bytes.NewReader(bad)
		if err := b.Put(t.Context(), good); err != nil {
			t.Fatal(err)
		}
	}
	if r, err = publish.Check(t.Context(), store, id, b, nil); err != nil || r.Replaced != 2 || r.Sent != 2 {
		t.Errorf("a damaged bucket: %+v %v", r, err)
	}
	if _, err := f.Verify(t.Context(), id, nil); err != nil {
		t.Errorf("the mended bucket: %v", err)
	}
}

func TestRefused(t *testing.T) {
	s := start(t)
	name := "chunks/00/" + strings.Repeat("0", 64) + ".zst"
	if _, err := s.open(t, "s3://images", "wrong").Size(t.Context(), name); !errors.Is(err, ErrRefused) {
		t.Errorf("wrong secret: %v", err)
	}
	if _, err := s.open(t, "s3://images", testSecret).Size(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
	if _, err := s.open(t, "s3://images", testSecret).Get(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such file to read: %v", err)
	}
	if _, err := s.open(t, "s3://none", testSecret).Get(t.Context(), name); !errors.Is(err, ErrRefused) {
		t.Errorf("no such bucket to read: %v", err)
	}
	o := zimage.Object{Name: name, Kind: "application/zstd", Size: 3, Body: strings.NewReader("abc")} // with the hash of something else
	if err := s.open(t, "s3://images", testSecret).Put(t.Context(), o); err == nil {
		t.Error("bytes that are not the signed ones were taken")
	}
	if err := s.open(t, "s3://none", testSecret).Put(t.Context(), o); err == nil {
		t.Error("a bucket that is not there took a file")
	}
	s.busy = 1000
	if _, err := s.open(t, "s3://images", testSecret).Size(t.Context(), name); !errors.Is(err, publish.ErrTemporary) {
		t.Errorf("a busy server: %v", err)
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	s.url = gone.URL
	if _, err := s.open(t, "s3://images", testSecret).Size(t.Context(), name); !errors.Is(err, publish.ErrTemporary) {
		t.Errorf("a server that is gone: %v", err)
	}
}

func TestOpen(t *testing.T) {
	env := map[string]string{"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
	for ref, change := range map[string]map[string]string{
		"s3://":              nil,
		"http://images":      nil,
		"s3://images?x":      nil,
		"s3://images/a b":    nil,
		"s3://images":        {"AWS_ACCESS_KEY_ID": ""},
		"s3://images/":       {"AWS_ENDPOINT_URL": "ftp://x"},
		"s3://images/prefix": {"AWS_ENDPOINT_URL": "https://"},
	} {
		_, err := Open(ref, func(name string) string {
			if v, ok := change[name]; ok {
				return v
			}
			return env[name]
		})
		if err == nil {
			t.Errorf("%s with %v is accepted", ref, change)
		}
	}
	b, err := Open("s3://images/p", func(name string) string { return env[name] })
	if err != nil || b.endpoint.Host != "s3.us-east-1.amazonaws.com" || b.base != "/images/p" {
		t.Errorf("%+v %v", b, err)
	}
}
