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
