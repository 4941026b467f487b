// SPDX-License-Identifier: Apache-2.0

package content

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/zimage"
)

// promise makes room for bytes that are about to be written for a path, and
// counts what this and other downloads were promised and have not written yet:
// two that fit one by one need not fit together.
func (s *Store) promise(path string, bytes int64) error {
	s.room.Lock()
	defer s.room.Unlock()
	s.mu.Lock()
	delete(s.promised, path) // it asks anew, for instance of another mirror
	s.mu.Unlock()
	if err := s.makeRoom(Need{Content: bytes}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.promised[path] = written(path) + bytes
	return nil
}

// outstanding is what is promised and not written yet.
func (s *Store) outstanding() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum int64
	for path, size := range s.promised {
		sum += max(size-written(path), 0)
	}
	return sum
}

// written is what a file on its way takes up; an image has holes until then.
func written(path string) int64 {
	n, err := takes(path + partExt)
	if err != nil {
		return 0 // not begun, or finished
	}
	return n
}

func takes(path string) (int64, error) {
	const block = 512
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Blocks * block, nil
}

// Room makes room for so many MiB of something that is not content by evicting
// what nobody needs (Decide). It returns a zimage.ErrNoRoom when that is not
// enough.
func (s *Store) Room(need int64) error {
	s.room.Lock()
	defer s.room.Unlock()
	return s.makeRoom(Need{Other: need * mib})
}

// makeRoom evicts until what is needed fits in fact: a file that a VM still has
// open gives nothing free.
func (s *Store) makeRoom(need Need) error {
	for {
		items, err := s.items()
		if err != nil {
			return err
		}
		space, err := s.Space(s.Dir)
		if err != nil {
			return err
		}
		gone, err := Decide(items, need, Limits{Quota: space.QuotaMiB * mib, Free: space.FreeMiB * mib, Reserve: reserveMiB * mib, Promised: s.outstanding()})
		if err != nil || len(gone) == 0 {
			return err
		}
		for _, i := range gone {
			if err := s.evict(i); err != nil {
				return err
			}
		}
		s.say()
	}
}

// evict deletes an item, unless somebody has come to need it since.
func (s *Store) evict(i Item) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.needed(i.Path) {
		return nil
	}
	for _, f := range i.Files {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("evict: %w", err)
		}
	}
	s.counts.evictions++
	s.counts.evicted += i.Bytes
	s.Log.Info("evicted to make room", "file", i.Path, "MiB", ceil(i.Bytes), "lastUsed", i.Used.UTC())
	return nil
}

// needed says whether a deployment needs a file or somebody works on it. s.mu
// is held.
func (s *Store) needed(path string) bool {
	_, busy := s.busy[path]
	return busy || len(s.owners(path)) > 0
}

// items lists what is there.
func (s *Store) items() ([]Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byPath := map[string]*Item{}
	var order []*Item
	for _, d := range []string{blobsDir, imagesDir, quarantineDir} {
		list, err := os.ReadDir(filepath.Join(s.Dir, d))
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		for _, e := range list {
			path := filepath.Join(s.Dir, d, e.Name())
			info, err := e.Info()
			if err == nil {
				var n int64
				if n, err = takes(path); err == nil {
					whole := itemPath(d, path)
					i := byPath[whole]
					if i == nil {
						i = &Item{Path: whole, Quarantine: d == quarantineDir, Needed: s.needed(whole)}
						byPath[whole] = i
						order = append(order, i)
					}
					i.Bytes += n
					i.Files = append(i.Files, path)
					if info.ModTime().After(i.Used) {
						i.Used = info.ModTime()
					}
				}
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // gone by now
				return nil, fmt.Errorf("store: %w", err)
			}
		}
	}
	all := make([]Item, len(order))
	for i, o := range order {
		all[i] = *o
	}
	return all, nil
}

// itemPath is the finished file that one of its item's files belongs to. The
// order of names is the order in which they go: the disk before its manifest.
func itemPath(dir, path string) string {
	if dir == quarantineDir {
		return path
	}
	folder, name := filepath.Split(path)
	name, _, _ = strings.Cut(strings.TrimPrefix(name, "."), ".") // a dot stands before temporary files of manifests
	if dir == imagesDir {
		name += imageExt
	}
	return folder + name
}

// full makes of the error of a file system that has nothing left a refusal that
// others can tell from a fault, and gives free at once what of the file was
// written: the node has to record the refusal on the same file system.
func (s *Store) full(path string, err error) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	err = fmt.Errorf("%w: the file system of the store is full: %w", zimage.ErrNoRoom, err)
	for _, ext := range []string{partExt, haveExt} {
		if rerr := os.Remove(path + ext); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}
