// SPDX-License-Identifier: Apache-2.0

package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/zos-node/zos/zimage"
)

// Arrive lets somebody else bring the disk of an image: into the files that
// zimage.PartNames says for path, within the room that is made for it here.
// Nobody else works on it until release. whole says that the disk is here
// already, as a file that Image would verify; nothing is held then.
func (s *Store) Arrive(ctx context.Context, m zimage.Manifest, id string) (path string, release func(), whole bool, err error) {
	path = s.ImagePath(id)
	release, err = s.take(ctx, path)
	if err != nil {
		return path, nil, false, err
	}
	_, err = os.Lstat(path)
	switch {
	case err == nil:
		release()
		return path, nil, true, nil
	case errors.Is(err, fs.ErrNotExist):
		err = s.promise(path, m.DiskSize-written(path))
	}
	if err != nil {
		release()
		return path, nil, false, fmt.Errorf("image %s: %w", id, err)
	}
	return path, release, false, nil
}

// ManifestAhead is Manifest of an image that is about to be started: where a mirror
// has to be asked for it, it is asked for the start pack at the same time, if served
// then says of the manifest that the image is one that is served while it arrives.
// PackAhead has it then.
func (s *Store) ManifestAhead(ctx context.Context, id string, served func(zimage.Manifest) bool) (zimage.Manifest, error) {
	return s.manifest(ctx, id, func(ctx context.Context, id string) (zimage.Manifest, error) {
		m, pack, err := s.Fetch.ManifestAhead(ctx, id)
		if err != nil || !served(m) {
			pack.Close()
			return m, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.packs[id].Close()
		s.packs[id] = pack
		return m, nil
	})
}

// PackAhead is what ManifestAhead asked for, once; nil is nothing.
func (s *Store) PackAhead(id string) *zimage.PackAhead {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.packs[id]
	delete(s.packs, id)
	return p
}

// QuarantinePart takes what has arrived of a disk out of use, after a guest
// found it wrong; that was recorded.
func (s *Store) QuarantinePart(id string) error {
	part, _ := zimage.PartNames(s.ImagePath(id))
	if err := os.Rename(part, s.quarantine(part)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("quarantine: %w", err)
	}
	s.say()
	return nil
}
