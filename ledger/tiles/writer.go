// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// Writer appends to a log's folder. Its files are on the disk, fsynced with
// their folders, before Publish replaces the checkpoint; so whatever a
// checkpoint covers can be read, whenever the power goes.
type Writer struct {
	dir     Dir
	tree    Tree
	levels  [][]tlog.Hash // hashes of the tile at the right edge, per level
	bundle  []byte        // entries of the bundle at the right edge
	written int64         // size of which all files are on the disk
	// Step is called before each kind of write; tests stop the process there.
	Step func(step string)
}

// NewWriter makes a writer for an empty log. Feed it the entries that the
// folder has already with Restore.
func NewWriter(dir Dir) *Writer {
	return &Writer{dir: dir, Step: func(string) {}}
}

// Tree is the tree of all entries so far.
func (w *Writer) Tree() Tree { return w.tree }

// Head is the tree as a checkpoint has it.
func (w *Writer) Head() tlog.Tree { return tlog.Tree{N: w.tree.Size(), Hash: w.tree.Hash()} }

// Restore takes an entry that is on the disk already.
func (w *Writer) Restore(entry []byte) {
	w.push(entry)
	w.written = w.tree.Size()
}

// push adds an entry in memory and returns what it completed.
func (w *Writer) push(entry []byte) (done []file) {
	index := w.tree.Size()
	leaf := tlog.RecordHash(entry)
	w.tree = w.tree.Append(leaf)
	w.bundle = AppendEntry(w.bundle, entry)
	if index%Width == Width-1 {
		done = append(done, file{BundlePath(index/Width, Width), w.bundle})
		w.bundle = nil
	}
	for level := 0; ; level++ {
		if level == len(w.levels) {
			w.levels = append(w.levels, nil)
		}
		w.levels[level] = append(w.levels[level], leaf)
		if len(w.levels[level]) < Width {
			return done
		}
		n := w.tree.Size()>>(Height*(level+1)) - 1
		done = append(done, file{Path(tlog.Tile{H: Height, L: level, N: n, W: Width}), join(w.levels[level])})
		leaf = tileHash(w.levels[level])
		w.levels[level] = nil
	}
}

func join(hashes []tlog.Hash) []byte {
	var b []byte
	for _, h := range hashes {
		b = append(b, h[:]...)
	}
	return b
}

// file is one to write.
type file struct {
	path string
	data []byte
}

// edge lists the partial files at the right edge that changed since `from`.
func (w *Writer) edge(from int64) []file {
	var all []file
	size := w.tree.Size()
	if n := size % Width; n > 0 {
		all = append(all, file{BundlePath(size/Width, int(n)), w.bundle})
	}
	for level, hashes := range w.levels {
		if len(hashes) > 0 && from>>(Height*level) != size>>(Height*level) {
			all = append(all, file{Path(tlog.Tile{H: Height, L: level, N: size >> (Height * (level + 1)), W: len(hashes)}), join(hashes)})
		}
	}
	return all
}

// Append writes entries to the disk and returns when they are there. Readers
// do not see them until Publish. After an error the writer is of no use.
func (w *Writer) Append(entries [][]byte) error {
	from := w.tree.Size()
	var files []file
	for _, e := range entries {
		files = append(files, w.push(e)...)
	}
	w.Step("tiles")
	if err := w.write(append(files, w.edge(from)...)); err != nil {
		return fmt.Errorf("write tiles: %w", err)
	}
	w.written = w.tree.Size()
	return nil
}

// Publish writes a signed checkpoint of the first size entries. Entries after
// those may be on the disk already; a checkpoint is for those that enough
// validators agreed to.
func (w *Writer) Publish(size int64, signed []byte) error {
	if w.written < size {
		return fmt.Errorf("publish %d entries: only %d are on the disk", size, w.written)
	}
	w.Step("checkpoint")
	if err := w.write([]file{{"checkpoint", signed}}); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	w.Step("published")
	return w.sweep(size)
}

// WriteRoot publishes the envelope of a root of trust.
func (w *Writer) WriteRoot(version int64, envelope []byte) error {
	return w.write([]file{{"root/" + strconv.FormatInt(version, 10) + ".json", envelope}})
}

// write puts files in place: temporary files, fsync, rename, and then one fsync
// for each folder. Fsyncs run side by side: a disk's journal takes all of them
// with one write, or two.
func (w *Writer) write(files []file) error {
	folders := map[string]bool{}
	for some := range slices.Chunk(files, together) {
		if err := w.place(some, folders); err != nil {
			return err
		}
	}
	return sideBySide(slices.Collect(maps.Keys(folders)), syncFolder)
}

// together is how many files are open, and fsyncs run, at once.
const together = 32

// place puts a few files in place, and notes the folders that have to be fsynced.
func (w *Writer) place(files []file, folders map[string]bool) (err error) {
	var temps []*os.File
	defer func() {
		for _, t := range temps { // which did not come to be a file
			if e := t.Close(); !errors.Is(e, os.ErrClosed) {
				err = errors.Join(err, e)
			}
			err = errors.Join(err, os.Remove(t.Name()))
		}
	}()
	for _, f := range files {
		folder := filepath.Dir(w.path(f))
		made, err := makeFolders(folder)
		if err != nil {
			return err
		}
		for _, m := range made {
			folders[m] = true
		}
		folders[folder] = true
		t, err := temporary(folder, f.data, 0o644)
		if err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
		temps = append(temps, t)
	}
	err = sideBySide(temps, func(t *os.File) error { return errors.Join(t.Sync(), t.Close()) })
	if err != nil {
		return err
	}
	for _, f := range files {
		w.Step("file")
		if err := os.Rename(temps[0].Name(), w.path(f)); err != nil {
			return err
		}
		temps = temps[1:]
	}
	return nil
}

func (w *Writer) path(f file) string { return filepath.Join(string(w.dir), filepath.FromSlash(f.path)) }

// sideBySide does something for all at once and joins the errors.
func sideBySide[T any](all []T, do func(T) error) error {
	errs := make([]error, len(all))
	turns := make(chan struct{}, together)
	var wait sync.WaitGroup
	for i, one := range all {
		turns <- struct{}{}
		wait.Go(func() { errs[i] = do(one); <-turns })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// sweep removes the partial files that a wider one has replaced, but for the
// last: a reader with the checkpoint before may be about to ask for it. Those
// of entries after the published size stay.
func (w *Writer) sweep(size int64) error {
	for level := 0; size>>(Height*level) > 0; level++ {
		hashes := size >> (Height * level)
		edge := hashes >> Height
		for n := max(edge-1, 0); n <= edge; n++ {
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

// WriteFile writes a whole file or leaves the old one: temporary file in the
// same folder, fsync, rename. The folder itself is the caller's to fsync.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	temp, err := temporary(filepath.Dir(path), data, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := errors.Join(temp.Sync(), temp.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(temp.Name()))
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

// temporary makes a file in a folder that has the data, but no fsync yet.
func temporary(folder string, data []byte, mode fs.FileMode) (*os.File, error) {
	temp, err := os.CreateTemp(folder, ".new-*")
	if err != nil {
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Chmod(mode)
	}
	if err != nil {
		return nil, errors.Join(err, temp.Close(), os.Remove(temp.Name()))
	}
	return temp, nil
}

// WriteFileSync is WriteFile and the fsync of the folder.
func WriteFileSync(path string, data []byte, mode fs.FileMode) error {
	if err := WriteFile(path, data, mode); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// makeFolders is MkdirAll that tells which folders got a new member.
func makeFolders(path string) (changed []string, err error) {
	for p := path; ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		changed = append(changed, filepath.Dir(p))
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	return changed, nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("fsync folder %s: %w", path, err)
	}
	return nil
}
