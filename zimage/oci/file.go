// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/zos-node/zos/zimage"
)

// file is a blob that lies in a file, or in a part of one.
type file struct {
	*io.SectionReader
	in  *os.File
	was os.FileInfo
	own bool // the file is closed with the blob
}

func openFile(in *os.File, off, size int64, own bool) (*file, error) {
	was, err := in.Stat()
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	return &file{io.NewSectionReader(in, off, size), in, was, own}, nil
}

// Unchanged implements zimage.File. It goes by length and times: the time of
// the last change of an inode is the kernel's, nobody sets it to what it was.
func (f *file) Unchanged() error {
	is, err := f.in.Stat()
	if err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	if is.Size() != f.was.Size() || !is.ModTime().Equal(f.was.ModTime()) || changed(is) != changed(f.was) {
		return fmt.Errorf("%w: %s was written to while it was read; convert it again when nobody writes", zimage.ErrMismatch, f.in.Name())
	}
	return nil
}

// changed is the time of the last change of an inode.
func changed(i os.FileInfo) (at syscall.Timespec) {
	if s, ok := i.Sys().(*syscall.Stat_t); ok {
		at = s.Ctim
	}
	return at
}

// Close implements zimage.File.
func (f *file) Close() error {
	if !f.own {
		return nil
	}
	if err := f.in.Close(); err != nil {
		return fmt.Errorf("close blob: %w", err)
	}
	return nil
}
