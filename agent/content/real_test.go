// SPDX-License-Identifier: Apache-2.0

package content

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/zimagetest"
)

// origin is a mirror with real images and a blob.
type origin struct {
	url       string
	ids       []string
	manifests []zimage.Manifest
	blob      string
	sent      *atomic.Int64 // bytes of bodies
}

// newOrigin makes an image of each size, and a blob of the last one.
func newOrigin(t *testing.T, sizes ...int) origin {
	t.Helper()
	var images []map[string]int
	for i, size := range sizes {
		images = append(images, map[string]int{"file": size, "name" + string(rune('a'+i)): 10})
	}
	return newOriginOf(t, sizes[len(sizes)-1], images...)
}

// newOriginOf makes images of files with given sizes, and a blob.
func newOriginOf(t *testing.T, blob int, images ...map[string]int) origin {
	t.Helper()
	mirror, err := zimage.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := origin{sent: &atomic.Int64{}}
	for _, files := range images {
		m, id, err := zimage.Convert(t.Context(), zimagetest.Image(t, files), "linux/amd64", mirror, nil)
		if err != nil {
			t.Fatal(err)
		}
		o.ids, o.manifests = append(o.ids, id), append(o.manifests, m)
	}
	file := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(file, make([]byte, blob), 0o600); err != nil {
		t.Fatal(err)
	}
	if o.blob, err = mirror.AddBlob(file); err != nil {
		t.Fatal(err)
	}
	next := zimage.Handler(mirror)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(counting{w, o.sent}, r) }))
	t.Cleanup(srv.Close)
	o.url = srv.URL
	return o
}

// counting counts what is sent.
type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c counting) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// store opens a folder with the origin as its mirror.
func (o origin) config(dir string) Config {
	return Config{Dir: dir, Fetch: &zimage.Fetcher{Mirrors: []string{o.url}}, Space: plenty, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler)}
}

// image fetches one as a deployment does.
func (o origin) image(ctx context.Context, s *Store, i int) (int64, error) {
	m, err := s.Manifest(ctx, o.ids[i])
	if err != nil {
		return 0, err
	}
	return s.Image(ctx, m, o.ids[i])
}

// leap is a clock on which a wait takes no time of ours.
type leap struct {
	now    time.Time
	waited time.Duration
}

func (l *leap) Now() time.Time { return l.now }
func (l *leap) After(d time.Duration) <-chan time.Time {
	ch := make(chan time.Time, 1)
	if d > 0 {
		l.now = l.now.Add(d)
		l.waited += d
	}
	ch <- l.now
	return ch
}
