// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/oci"
)

// Limits of the documents that commands read whole, in bytes, where the
// package that decodes them names none.
const (
	maxAuthored = 1 << 20  // what render takes: comments and long forms of 40 KiB
	maxKeyFile  = 64 << 10 // keys and certificates, also a chain of them
)

// openRegular opens a file and refuses what is none: a pipe without a writer
// would block for ever, a device has no end. want says what the file should be.
func openRegular(path, want string) (*os.File, error) {
	info, err := os.Stat(path) // opening a device may act on it
	if err != nil {
		return nil, fileError(err)
	}
	if info.Mode().IsRegular() {
		// Without O_NONBLOCK a pipe that took the file's place just now would block.
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, fileError(err)
		}
		if info, err = f.Stat(); err == nil && info.Mode().IsRegular() {
			return f, nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
	}
	return nil, coded(exitRefused, fmt.Errorf("%s is a %s; want a regular file with %s", path, fileKind(info.Mode()), want))
}

// regularOrAbsent refuses a path at which stands something that is no regular
// file: another package is about to read it, or it would be replaced.
func regularOrAbsent(path, want string) error {
	f, err := openRegular(path, want)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// fileKind names what is no regular file.
func fileKind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "folder"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "device"
}

// readFile reads a document whole, if it is a regular file of at most limit
// bytes; want names the document for messages.
func readFile(path, want string, limit int64) (_ []byte, err error) {
	f, err := openRegular(path, want)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if info.Size() > limit {
		return nil, coded(exitRefused, fmt.Errorf("%s has %d bytes, and %s has at most %d; was another file meant?", path, info.Size(), want, limit))
	}
	// It may grow, and files of the kernel have no size.
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, coded(exitRefused, fmt.Errorf("%s has more than %d bytes, the most that %s has; was another file meant?", path, limit, want))
	}
	return b, nil
}

// writeFile writes a result whole or not at all. What is no regular file is
// not replaced.
func writeFile(path string, b []byte, mode fs.FileMode) error {
	if err := regularOrAbsent(path, "what was written before, or nothing"); err != nil {
		return err
	}
	return renameio.WriteFile(path, b, mode)
}

// writeSecret writes what only its owner may read, whatever the mode of the
// file that it takes the place of.
func writeSecret(path string, b []byte) error {
	return writePending(path, func(f *os.File) error {
		_, err := f.Write(b)
		return err
	})
}

// writePending is writeSecret for what a function writes. renameio.WriteFile
// would keep the mode of the file that stands there.
func writePending(path string, fill func(*os.File) error) error {
	if err := regularOrAbsent(path, "what was written before, or nothing"); err != nil {
		return err
	}
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o600))
	if err != nil {
		return err
	}
	if err := fill(f.File); err != nil {
		return errors.Join(err, f.Cleanup())
	}
	return f.CloseAtomicallyReplace()
}

// regularArchive looks at what a reference to an image names, if that is a file.
func regularArchive(ref string) error {
	name, ok := strings.CutPrefix(ref, "docker-archive:")
	if !ok {
		return nil
	}
	return regularOrAbsent(name, "what docker save wrote")
}

// openSource opens an image of others.
func openSource(ref string) (zimage.Source, error) {
	if err := regularArchive(ref); err != nil {
		return nil, err
	}
	return oci.OpenSource(ref)
}
