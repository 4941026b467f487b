// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sweep removes what a crash left half made in a ledger's folder: temporary
// files, ours and CometBFT's, and databases that never came to be.
func sweep(dir string) error {
	err := filepath.WalkDir(string(LogDir(dir)), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() && strings.HasPrefix(d.Name(), ".new-") {
			return os.Remove(path)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for leftovers: %w", err)
	}
	data := filepath.Join(dir, "comet", "data")
	list, err := os.ReadDir(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for leftovers: %w", err)
	}
	for _, f := range list {
		path := filepath.Join(data, f.Name())
		switch {
		case f.IsDir() && strings.HasSuffix(f.Name(), ".db"):
			var empty bool
			if empty, err = unborn(path); err == nil && empty {
				err = os.RemoveAll(path)
			}
		case f.Type().IsRegular() && strings.HasPrefix(f.Name(), "write-file-atomic-"):
			err = os.Remove(path)
		}
		if err != nil {
			return fmt.Errorf("look for leftovers: %w", err)
		}
	}
	return nil
}

// unborn says whether a LevelDB was not made to its end when the power went: it
// has no file CURRENT, which is the last step, and so nothing was ever written
// to it. LevelDB itself refuses such a folder.
func unborn(dir string) (bool, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, f := range list {
		switch ext := filepath.Ext(f.Name()); {
		case f.Name() == "CURRENT", f.Name() == "CURRENT.bak", ext == ".ldb", ext == ".sst":
			return false, nil
		case ext == ".log": // what was written since the start of the database
			info, err := f.Info()
			if err != nil || info.Size() > 0 {
				return false, err
			}
		}
	}
	return true, nil
}
