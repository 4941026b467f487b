// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// Watch repeats the check when block devices have come or gone: a stick may show
// up long after the disks inside, and after its twin was taken for the node's own.
type Watch struct {
	Sys, Dev string
	seen     []string
	checked  bool
}

// Look returns what Check says of the devices that are there now, nil at once
// while they are those that it had nothing against. What fails is checked again
// by the next Look: a disk that is just going away cannot be read.
func (w *Watch) Look() error {
	entries, err := os.ReadDir(w.Sys)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list disks: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if w.checked && slices.Equal(names, w.seen) {
		return nil
	}
	if err := Check(w.Sys, w.Dev); err != nil {
		w.checked = false
		return err
	}
	w.seen, w.checked = names, true
	return nil
}
