// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// Writer appends to a log's folder. Its files are on the disk, fsynced with
// their folders, before a checkpoint is replaced; so whatever a checkpoint
// covers can be read, whenever the power goes. One goroutine may append while
// another one shows checkpoints and settles them.
type Writer struct {
	dir    Dir
	tree   Tree
	levels [][]tlog.Hash // hashes of the tile at the right edge, per level
	bundle []byte        // entries of the bundle at the right edge
	shown  *shown
	// Step is called before each kind of write; tests stop the process there.
	Step func(step string)
}

// NewWriter makes a writer for an empty log. Feed it the entries that the
// folder has already with Restore.
func NewWriter(dir Dir) *Writer {
	return &Writer{dir: dir, shown: &shown{}, Step: func(string) {}}
}

// Tree is the tree of all entries so far.
func (w *Writer) Tree() Tree { return w.tree }

// Head is the tree as a checkpoint has it.
func (w *Writer) Head() tlog.Tree { return tlog.Tree{N: w.tree.Size(), Hash: w.tree.Hash()} }

// Restore takes an entry that is on the disk already.
func (w *Writer) Restore(entry []byte) {
	w.push(entry)
	w.shown.from(w.tree.Size())
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
// do not see them until a checkpoint is shown. After an error the writer is of
// no use.
func (w *Writer) Append(entries [][]byte) error {
	_, err := w.Begin(entries, func(tlog.Tree) ([]byte, error) { return nil, nil }).Finish()
	return err
}

// Begin is Append that does not wait: the writing goes on while the caller does
// something else, and Finish waits for it. Meanwhile sign makes the checkpoint of
// the tree that the entries make, or nil where it cannot; its bytes are fsynced
// along with theirs. Each Begin needs its Finish before the next one.
func (w *Writer) Begin(entries [][]byte, sign func(tlog.Tree) ([]byte, error)) *Writing {
	from := w.tree.Size()
	var files []file
	for _, e := range entries {
		files = append(files, w.push(e)...)
	}
	files = append(files, w.edge(from)...)
	one := &Writing{w: w, tree: w.Head()}
	one.going.Go(func() {
		w.Step("tiles")
		if err := w.add(files); err != nil {
			one.failed = fmt.Errorf("write tiles: %w", err)
		}
	})
	one.going.Go(func() { one.signed = w.checkpoint(one.tree, sign) })
	return one
}

// Writing is what Begin began.
type Writing struct {
	w      *Writer
	tree   tlog.Tree
	going  sync.WaitGroup
	failed error // of the files
	signed signed
}

// signed is a checkpoint that has no name yet: path is its temporary file, ""
// where there is none.
type signed struct {
	path string
	err  error
}

// Wait returns when nothing is being written any more.
func (o *Writing) Wait() { o.going.Wait() }

// Finish returns when the entries are on the disk, and shows the checkpoint that
// sign made, if it did. After an error nothing is shown.
func (o *Writing) Finish() (shown bool, err error) {
	o.Wait()
	if err := errors.Join(o.failed, o.signed.err); err != nil {
		if o.signed.path != "" {
			err = errors.Join(err, os.Remove(o.signed.path))
		}
		return false, err
	}
	o.w.shown.wrote(o.tree.N)
	if o.signed.path == "" {
		return false, nil
	}
	return true, o.w.show(o.tree.N, o.signed.path)
}

// checkpoint has a tree signed, and its checkpoint on the disk without its name.
func (w *Writer) checkpoint(t tlog.Tree, sign func(tlog.Tree) ([]byte, error)) signed {
	note, err := sign(t)
	if err != nil || note == nil {
		return signed{err: err}
	}
	f, err := w.unnamed(note)
	return signed{f, err}
}

// add puts files in place that no checkpoint covers yet, and returns when they
// are on the disk. They get their names before their bytes are fsynced, so that
// one round of fsyncs does for bytes and names: after a power cut in the middle
// of it there may be names with half of the bytes, but beyond the checkpoint,
// where whoever goes on writes them again.
func (w *Writer) add(files []file) (err error) {
	syncs := []func() error{}
	defer func() {
		for _, sync := range syncs { // after an error nobody does so any more; it closes the files
			_ = sync()
		}
	}()
	folders := map[string]bool{}
	for some := range slices.Chunk(files, together) {
		for _, f := range some {
			t, err := w.named(f, folders)
			if err != nil {
				return err
			}
			syncs = append(syncs, func() error { return errors.Join(t.Sync(), t.Close()) })
		}
		if len(syncs) < together {
			break
		}
		now := syncs
		syncs = nil
		if err := sideBySide(now, func(sync func() error) error { return sync() }); err != nil {
			return err
		}
	}
	for folder := range folders {
		syncs = append(syncs, func() error { return syncFolder(folder) })
	}
	now := syncs
	syncs = nil
	return sideBySide(now, func(sync func() error) error { return sync() })
}

// named puts one file in place, not fsynced, and notes the folders that have to
// be.
func (w *Writer) named(f file, folders map[string]bool) (*os.File, error) {
	folder := filepath.Dir(w.path(f))
	made, err := makeFolders(folder)
	if err != nil {
		return nil, err
	}
	for _, m := range append(made, folder) {
		folders[m] = true
	}
	t, err := temporary(folder, f.data, 0o644)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", f.path, err)
	}
	w.Step("file")
	if err := os.Rename(t.Name(), w.path(f)); err != nil {
		return nil, errors.Join(err, t.Close(), os.Remove(t.Name()))
	}
	return t, nil
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
