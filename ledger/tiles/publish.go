// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// shown is how far the files are on the disk, and which checkpoint readers see.
type shown struct {
	settle  sync.Mutex // held while one settles
	mu      sync.Mutex
	written int64 // size of which all files are on the disk
	size    int64 // of the checkpoint
	settled int64 // size of the newest one whose name is on the disk, and older files swept
	loose   bool  // its name is not on the disk yet
}

// leftovers is how many entries before the end of a log may have partial files
// that a writer of before did not come to sweep.
const leftovers = 64 * Width

// from begins at a log whose checkpoint is on the disk.
func (s *shown) from(size int64) {
	s.written, s.size, s.settled = size, size, max(size-leftovers, 0)
}

func (s *shown) wrote(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = size
}

// Publish is Show and Settle.
func (w *Writer) Publish(size int64, signed []byte) error {
	if err := w.Show(size, signed); err != nil {
		return err
	}
	return w.Settle()
}

// Show gives readers a signed checkpoint of the first size entries, unless they
// have that of more. Entries after those may be on the disk already; a checkpoint
// is for those that enough validators agreed to. Its bytes are fsynced, its name
// is not: after a power cut there may be the checkpoint that it replaced.
func (w *Writer) Show(size int64, signed []byte) error {
	w.shown.mu.Lock()
	written := w.shown.written
	w.shown.mu.Unlock()
	if written < size {
		return fmt.Errorf("publish %d entries: only %d are on the disk", size, written)
	}
	temp, err := w.unnamed(signed)
	if err != nil {
		return err
	}
	return w.show(size, temp)
}

// unnamed brings a checkpoint's bytes to the disk, in a temporary file.
func (w *Writer) unnamed(signed []byte) (temp string, err error) {
	t, err := temporary(string(w.dir), signed, 0o644)
	if err != nil {
		return "", fmt.Errorf("write checkpoint: %w", err)
	}
	if err := errors.Join(t.Sync(), t.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("write checkpoint: %w", err), os.Remove(t.Name()))
	}
	return t.Name(), nil
}

// show gives the checkpoint its name.
func (w *Writer) show(size int64, temp string) error {
	w.shown.mu.Lock()
	defer w.shown.mu.Unlock()
	if size < w.shown.size {
		return os.Remove(temp)
	}
	w.Step("checkpoint")
	if err := os.Rename(temp, filepath.Join(string(w.dir), "checkpoint")); err != nil {
		return errors.Join(fmt.Errorf("write checkpoint: %w", err), os.Remove(temp))
	}
	w.Step("published")
	w.shown.size, w.shown.loose = size, true
	return nil
}

// Settle brings the checkpoint's name to the disk, and removes what only the
// checkpoints before it needed.
func (w *Writer) Settle() error {
	w.shown.settle.Lock()
	defer w.shown.settle.Unlock()
	w.shown.mu.Lock()
	from, size, loose := w.shown.settled, w.shown.size, w.shown.loose
	w.shown.loose = false
	w.shown.mu.Unlock()
	if !loose {
		return nil
	}
	if err := syncFolder(string(w.dir)); err != nil {
		return err
	}
	if err := w.sweep(from, size); err != nil {
		return err
	}
	w.shown.mu.Lock()
	defer w.shown.mu.Unlock()
	w.shown.settled = size
	return nil
}

// sweep removes the partial files that a wider one has replaced, but for the
// last: a reader with the checkpoint before may be about to ask for it. Those
// of entries after the published size stay. It looks at what can have changed
// since the log had `from` entries.
func (w *Writer) sweep(from, size int64) error {
	for level := 0; size>>(Height*level) > 0; level++ {
		hashes := size >> (Height * level)
		edge := hashes >> Height
		for n := max(from>>(Height*(level+1))-1, 0); n <= edge; n++ {
			width := int(min(hashes-n*Width, Width))
			folders := []string{Path(tlog.Tile{H: Height, L: level, N: n, W: Width})}
			if level == 0 {
				folders = append(folders, BundlePath(n, Width))
			}
			for _, f := range folders {
				if err := w.sweepFolder(f+".p", width); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (w *Writer) sweepFolder(folder string, width int) error {
	path := filepath.Join(string(w.dir), filepath.FromSlash(folder))
	list, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("list old tiles: %w", err)
	}
	var older []int
	for _, f := range list {
		if n, err := strconv.Atoi(f.Name()); err == nil && n < width {
			older = append(older, n)
		}
	}
	slices.Sort(older)
	for _, n := range older[:max(len(older)-1, 0)] {
		if err := os.Remove(filepath.Join(path, strconv.Itoa(n))); err != nil {
			return fmt.Errorf("remove old tile: %w", err)
		}
	}
	return nil
}
