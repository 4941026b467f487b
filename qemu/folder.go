// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// folderPrefix names the folders of machines among the temporary ones.
const folderPrefix = "zos-rig-"

// folderAge is how old a folder without an owner must be to be swept: one that
// was made this moment may not be locked yet.
const folderAge = 10 * time.Minute

// folder is where one machine's sockets and disks stand. Its owner holds a
// lock on it, which the kernel gives back however the owner ends.
type folder struct {
	path string
	lock *os.File
}

// newFolder makes one, and removes those that rigs left behind which were
// killed.
func newFolder(parent string, now time.Time) (*folder, error) {
	if err := sweep(parent, now); err != nil {
		return nil, fmt.Errorf("folders of rigs that were killed: %w", err)
	}
	path, err := os.MkdirTemp(parent, folderPrefix)
	if err != nil {
		return nil, fmt.Errorf("folder for the machine: %w", err)
	}
	f, err := os.Open(path)
	if err == nil {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return &folder{path, f}, nil
		}
		err = errors.Join(err, f.Close())
	}
	return nil, errors.Join(fmt.Errorf("folder for the machine: %w", err), os.RemoveAll(path))
}

// remove gives it back.
func (f *folder) remove() error {
	return errors.Join(os.RemoveAll(f.path), f.lock.Close())
}

func sweep(parent string, now time.Time) error {
	all, err := filepath.Glob(filepath.Join(parent, folderPrefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range all {
		errs = append(errs, sweepOne(path, now))
	}
	return errors.Join(errs...)
}

func sweepOne(path string, now time.Time) (err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil // gone meanwhile, somebody else's, or no folder of a rig
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil || now.Sub(info.ModTime()) < folderAge {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil // its rig lives
	} else if err != nil {
		return err
	}
	return os.RemoveAll(path)
}
