// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

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
