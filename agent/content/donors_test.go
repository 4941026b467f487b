// SPDX-License-Identifier: Apache-2.0

package content

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/zos-node/zos/zimage"
)

// TestChunksOfOtherImages: of a new version of an image of 50 MiB, of which 1 MiB
// is another, a node with the old one gets that and what stands for it.
func TestChunksOfOtherImages(t *testing.T) {
	const changed = 1 << 20
	o := newOriginOf(t, 1, map[string]int{"big": 49 << 20, "file1": changed}, map[string]int{"big": 49 << 20, "file2": changed})
	s, err := Open(o.config(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := o.image(t.Context(), s, 0); err != nil || n < 50<<20 || o.sent.Load() < 50<<20 {
		t.Fatalf("the first: received %d, sent %d, %v", n, o.sent.Load(), err)
	}
	o.sent.Store(0)
	n, err := o.image(t.Context(), s, 1)
	sent := o.sent.Load()
	t.Logf("of a disk of %d bytes it received %d, and with the manifest %d", o.manifests[1].DiskSize, n, sent)
	if err != nil || n < changed || n > changed+changed/4 || sent < n || sent > changed+changed/2 {
		t.Errorf("the second: received %d, sent %d, %v", n, sent, err)
	}
	if err := zimage.VerifyImage(s.ImagePath(o.ids[1]), o.manifests[1]); err != nil {
		t.Error(err)
	}
}

// about has something done between the moment in which donors were found, and
// that in which they are used.
type about struct {
	*zimage.Fetcher
	use func() error
}

func (a about) ImageBeside(ctx context.Context, m zimage.Manifest, id, path string, near *zimage.Donors) (int64, error) {
	if !near.Has(m.Chunks[1]) {
		return 0, errors.New("there is no donor: the test does not test")
	}
	if err := a.use(); err != nil {
		return 0, err
	}
	return a.Fetcher.ImageBeside(ctx, m, id, path, near)
}

// TestAlteredDonor: whatever became of a donor, the new image is right; what was
// altered is recorded and out of use, as when Scrub finds it.
func TestAlteredDonor(t *testing.T) {
	const size = 3 << 20
	o := newOriginOf(t, 1, map[string]int{"big": size, "file1": 70 << 10}, map[string]int{"big": size, "file2": 70 << 10})
	none := errors.New("the ledger's queue is full")
	for name, c := range map[string]struct {
		alter    func(s *Store, path string) error // of the donor's disk
		record   error
		found    func(s *Store, path string) []string
		received int64 // at least
		stays    bool  // the donor, in use
	}{
		"right":     {func(*Store, string) error { return nil }, nil, nothing, 70 << 10, true},
		"a bit":     {func(_ *Store, p string) error { return flip(p, 1<<20) }, nil, disk, zimage.MaxChunk, false},
		"cut":       {func(_ *Store, p string) error { return os.Truncate(p, 1<<20) }, nil, disk, size / 2, false},
		"evicted":   {func(s *Store, p string) error { return evicted(s, p) }, nil, nothing, size, false},
		"no record": {func(_ *Store, p string) error { return flip(p, 1<<20) }, none, disk, zimage.MaxChunk, true},
		"quarantined": {func(s *Store, p string) error {
			return errors.Join(flip(p, 1<<20), s.Quarantine(p, func(string) error { return nil }))
		}, nil, nothing, size, false},
	} {
		t.Run(name, func(t *testing.T) {
			conf := o.config(t.TempDir())
			var found []string
			conf.Found = func(f Finding) error {
				if !errors.Is(f.Err, zimage.ErrMismatch) {
					t.Errorf("found %v", f)
				}
				found = append(found, f.Path)
				return c.record
			}
			s, err := Open(conf)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := o.image(t.Context(), s, 0); err != nil {
				t.Fatal(err)
			}
			donor := s.ImagePath(o.ids[0])
			if err := os.Chmod(donor, 0o600); err != nil {
				t.Fatal(err)
			}
			s.Fetch = about{conf.Fetch.(*zimage.Fetcher), func() error { return c.alter(s, donor) }}
			n, err := o.image(t.Context(), s, 1)
			if err != nil || n < c.received || n > c.received+256<<10 && c.received != size/2 {
				t.Errorf("received %d, want about %d: %v", n, c.received, err)
			}
			if err := zimage.VerifyImage(s.ImagePath(o.ids[1]), o.manifests[1]); err != nil {
				t.Error(err)
			}
			if want := c.found(s, donor); !slices.Equal(found, want) {
				t.Errorf("found %v, want %v", found, want)
			}
			if exists(t, donor) != c.stays {
				t.Errorf("the donor is in use: %v", !c.stays)
			}
		})
	}
}

func nothing(*Store, string) []string     { return nil }
func disk(_ *Store, path string) []string { return []string{path} }

func evicted(s *Store, path string) error {
	items, err := s.items()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(items, func(i Item) bool { return i.Path == path })
	if i < 0 {
		return fmt.Errorf("%s is no item", path)
	}
	return s.evict(items[i])
}

// TestAlteredManifestOfDonor: a donor whose manifest was altered is none; that is
// recorded, and the disk, which is right, stays.
func TestAlteredManifestOfDonor(t *testing.T) {
	o := newOriginOf(t, 1, map[string]int{"big": 1 << 20, "file1": 100}, map[string]int{"big": 1 << 20, "file2": 100})
	c := o.config(t.TempDir())
	var found []string
	c.Found = func(f Finding) error { found = append(found, f.Path); return nil }
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.image(t.Context(), s, 0); err != nil {
		t.Fatal(err)
	}
	manifest := s.manifestPath(o.ids[0])
	if err := errors.Join(os.Chmod(manifest, 0o600), flip(manifest, 30)); err != nil {
		t.Fatal(err)
	}
	if n, err := o.image(t.Context(), s, 1); err != nil || n < 1<<20 {
		t.Errorf("received %d, %v", n, err)
	}
	if !slices.Equal(found, []string{manifest}) || !exists(t, s.ImagePath(o.ids[0])) {
		t.Errorf("found %v; the disk is there: %v", found, exists(t, s.ImagePath(o.ids[0])))
	}
}

// TestFewDonors: only whole images are donors, so many at most, the last used first.
func TestFewDonors(t *testing.T) {
	s := newStore(t, &fakeFetcher{})
	for i := range 5 {
		for _, ext := range []string{imageExt, manifestExt, imageExt + partExt, imageExt + haveExt} {
			path := filepath.Join(s.Dir, imagesDir, fmt.Sprint(i)+ext)
			when := time.Unix(int64(100-i), 0)
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, when, when)); err != nil {
				t.Fatal(err)
			}
		}
	}
	at := func(i int) string { return filepath.Join(s.Dir, imagesDir, fmt.Sprint(i)+imageExt) }
	if got, err := s.recent(3, at(1)); err != nil || !slices.Equal(got, []string{at(0), at(2), at(3)}) {
		t.Errorf("donors %v, %v", got, err)
	}
	if got, err := s.recent(9, at(7)); err != nil || len(got) != 5 {
		t.Errorf("donors %v, %v", got, err)
	}
}
