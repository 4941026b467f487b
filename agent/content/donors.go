// SPDX-License-Identifier: Apache-2.0

package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/zos-node/zos/zimage"
)

// maxDonors is how many images are looked through for chunks of another, those
// that were used last: each costs the reading of a manifest, and one that shares
// much was most likely used until now.
const maxDonors = 16

// Donors are the other whole images here, of which a new one may have chunks. A
// donor is not held: it may be evicted, or found wrong and taken out of use, at
// any moment.
func (s *Store) Donors(m zimage.Manifest, id string) *zimage.Donors {
	return zimage.NewDonors(m, func(d *zimage.Donors) {
		paths, err := s.recent(maxDonors, s.ImagePath(id))
		if err != nil {
			s.Log.Warn("images here are not looked through for chunks of another", "image", id, "err", err)
			return
		}
		for _, path := range paths {
			w, err := want(path, s.kept)
			switch {
			case errors.Is(err, zimage.ErrMismatch):
				d.Doubt(path) // whoever looks at the disk looks at its manifest first
			case err != nil: // it is being evicted, or an agent died before it wrote the manifest
				s.Log.Info("an image here is not looked through for chunks of another", "file", path, "err", err)
			case d.Add(*w.Image, path) == 0:
				return
			}
		}
	})
}

// recent are the whole images that were used last, but one.
func (s *Store) recent(most int, but string) ([]string, error) {
	list, err := os.ReadDir(filepath.Join(s.Dir, imagesDir))
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	type image struct {
		path string
		used time.Time
	}
	var all []image
	for _, e := range list {
		path := filepath.Join(s.Dir, imagesDir, e.Name())
		if !strings.HasSuffix(path, imageExt) || path == but {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // evicted
		}
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		all = append(all, image{path, info.ModTime()})
	}
	slices.SortFunc(all, func(a, b image) int { return b.used.Compare(a.used) })
	var paths []string
	for _, i := range all[:min(len(all), most)] {
		paths = append(paths, i.path)
	}
	return paths, nil
}

// Examine hashes the donors of which something was wrong, as Scrub does, and
// takes out of use what is. One that cannot be recorded stays where it is: the
// next pass of Scrub finds it again, and whoever starts from it.
func (s *Store) Examine(ctx context.Context, d *zimage.Donors) {
	for _, path := range d.Doubtful() {
		s.Log.Warn("a chunk of an image here is not what it was: the image is hashed", "file", path)
		if err := s.scrub(ctx, path, nil); err != nil {
			s.Log.Error("scrub", "file", path, "err", err)
		}
	}
}
