// SPDX-License-Identifier: Apache-2.0

package content

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/zimage"
)

// TestScrub: everything is hashed, at no more than the rate; one bit anywhere
// is found, recorded, and the file taken out of use; without a mirror.
func TestScrub(t *testing.T) {
	o := newOrigin(t, 3<<20, 1<<20)
	c := o.config(t.TempDir())
	clock := &leap{now: time.Unix(1e9, 0)}
	c.Clock = clock
	var found []Finding
	c.Found = func(f Finding) error { found = append(found, f); return nil }
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range o.ids {
		if _, err := o.image(t.Context(), s, i); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Blob(t.Context(), o.blob); err != nil {
		t.Fatal(err)
	}
	s.Fetch = &zimage.Fetcher{} // what is here needs nobody
	u, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ScrubOnce(t.Context()); err != nil || len(found) != 0 {
		t.Fatalf("all is right: %v, %v", err, found)
	}
	if least := time.Duration(u.MiB-3) * mib * time.Second / scrubRate; clock.waited < least {
		t.Errorf("it waited %v for %d MiB, want at least %v", clock.waited, u.MiB, least)
	}
	if u, err = s.Usage(); err != nil || !u.Scrubbed.Equal(clock.now) {
		t.Errorf("scrubbed %v, %v", u.Scrubbed, err)
	}
	m := o.manifests[0]
	for name, alter := range map[string]func(path string) error{
		"data":        func(p string) error { return flip(p, 1<<20) },
		"superblock":  func(p string) error { return flip(p, 1024) },
		"hash block":  func(p string) error { return flip(p, m.DataSize+5000) },
		"last byte":   func(p string) error { return flip(p, m.DiskSize-1) },
		"cut":         func(p string) error { return os.Truncate(p, m.DiskSize-4096) },
		"longer":      func(p string) error { return os.Truncate(p, m.DiskSize+1) },
		"other image": func(p string) error { return errors.Join(os.Remove(p), os.Link(s.ImagePath(o.ids[1]), p)) },
	} {
		t.Run(name, func(t *testing.T) {
			found = nil
			path := s.ImagePath(o.ids[0])
			if err := errors.Join(os.Chmod(path, 0o600), alter(path)); err != nil {
				t.Fatal(err)
			}
			if err := s.ScrubOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(found) != 1 || found[0].Path != path || !errors.Is(found[0].Err, zimage.ErrMismatch) {
				t.Fatalf("found %v", found)
			}
			t.Log(found[0].Err)
			if exists(t, path) || !exists(t, found[0].Quarantine) {
				t.Error("it is in use still")
			}
			s.Fetch = c.Fetch
			if n, err := o.image(t.Context(), s, 0); err != nil || n == 0 {
				t.Fatalf("fetched anew: %d, %v", n, err)
			}
			s.Fetch = &zimage.Fetcher{}
		})
	}
	t.Run("kernel", func(t *testing.T) {
		found = nil
		if err := errors.Join(os.Chmod(s.BlobPath(o.blob), 0o600), flip(s.BlobPath(o.blob), 7)); err != nil {
			t.Fatal(err)
		}
		if err := s.ScrubOnce(t.Context()); err != nil || len(found) != 1 || exists(t, s.BlobPath(o.blob)) {
			t.Errorf("found %v, %v", found, err)
		}
	})
	t.Run("manifest", func(t *testing.T) {
		found = nil
		path := s.manifestPath(o.ids[0])
		if err := errors.Join(os.Chmod(path, 0o600), flip(path, 20)); err != nil {
			t.Fatal(err)
		}
		s.Fetch = c.Fetch
		if err := s.ScrubOnce(t.Context()); err != nil || len(found) != 1 || found[0].Path != path || !exists(t, s.ImagePath(o.ids[0])) {
			t.Errorf("found %v, %v", found, err)
		}
	})
	if list, err := filepath.Glob(filepath.Join(s.Dir, quarantineDir, "*")); err != nil || len(list) != 9 {
		t.Errorf("in quarantine: %s, %v", strings.Join(list, " "), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.ScrubOnce(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

// rounds is a clock on which no time passes while something is hashed; it calls
// next before each pause between two passes.
type rounds struct {
	leap
	pauses int
	next   func(pause int)
}

func (r *rounds) After(d time.Duration) <-chan time.Time {
	if d == scrubEvery {
		r.pauses++
		r.next(r.pauses)
	}
	return r.leap.After(d)
}

// TestScrubGoesOn: a pass begins after each pause, also after one that failed,
// and finds what is wrong by then; when the context ends, it ends.
func TestScrubGoesOn(t *testing.T) {
	o := newOrigin(t, 1<<20)
	c := o.config(t.TempDir())
	var found []Finding
	c.Found = func(f Finding) error { found = append(found, f); return nil }
	var log strings.Builder
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	clock := &rounds{leap: leap{now: time.Unix(1e9, 0)}}
	c.Clock = clock
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.image(t.Context(), s, 0); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	manifest := s.manifestPath(o.ids[0])
	var passes []time.Time
	clock.next = func(pause int) {
		if ctx.Err() != nil {
			return // the pause is over as soon as it begins: Scrub sees that, or the end, first
		}
		u, err := s.Usage()
		passes = append(passes, u.Scrubbed)
		switch pause {
		case 1:
			err = errors.Join(err, os.Rename(manifest, manifest+".away")) // nobody can say what the image should be
			s.Fetch = &zimage.Fetcher{}
		case 2:
			err = errors.Join(err, os.Rename(manifest+".away", manifest), os.Chmod(s.ImagePath(o.ids[0]), 0o600), flip(s.ImagePath(o.ids[0]), 5000))
		case 3:
			end()
		}
		if err != nil {
			t.Error(err)
			end()
		}
	}
	s.Scrub(ctx)
	if len(passes) != 3 || !passes[0].IsZero() || !passes[1].After(passes[0]) || !passes[2].After(passes[1]) {
		t.Errorf("%d passes, which ended at %v", len(passes)-1, passes)
	}
	if n := strings.Count(log.String(), "level=ERROR msg=scrub"); n != 1 {
		t.Errorf("%d errors: %s", n, log.String())
	}
	if len(found) != 1 || found[0].Path != s.ImagePath(o.ids[0]) {
		t.Errorf("found %v", found)
	}
}

func flip(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	_, rerr := f.ReadAt(b, at)
	b[0] ^= 1
	_, werr := f.WriteAt(b, at)
	return errors.Join(rerr, werr, f.Close())
}
