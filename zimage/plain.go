// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/zos-node/zos/zimage/flat"
)

// File is a blob that lies in a file on this machine.
type File interface {
	io.ReaderAt
	io.Closer
	Size() int64
	// Unchanged fails when the file was written to since it was opened.
	Unchanged() error
}

// Filer is a Source whose blobs lie in files. The contents of a layer that is
// not compressed then stay where they are until the image is written, and do
// not go through a temporary file.
type Filer interface {
	Source
	// File opens what the manifest names by digest; nil without an error where
	// there is no such file to be read at any place.
	File(digest string) (File, error)
}

// placed are files of layers whose contents a tree reads where they lie.
type placed []File

// unchanged fails when the bytes that were hashed may not be those that were
// read after that. It is asked when nothing more will be read.
func (l placed) unchanged() error {
	for _, f := range l {
		if err := f.Unchanged(); err != nil {
			return err
		}
	}
	return nil
}

// Close ends all reading.
func (l placed) Close() error {
	var errs []error
	for _, f := range l {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// lies opens a layer that lies plain in a file, and gives nil of others. Only
// what is not compressed has one digest, packed and unpacked; readLayer holds
// the bytes against both.
func lies(src Source, d descriptor, diffID string) (File, error) {
	from, ok := src.(Filer)
	if !ok || d.Digest != diffID || !isDigest(d.Digest) {
		return nil, nil
	}
	f, err := from.File(d.Digest)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	return f, nil
}

// opened is a source, one of whose blobs is open already: what is hashed and
// what is read later is one file, whatever its name stands for by then.
type opened struct {
	Source
	file File
}

// Blob implements Source.
func (o opened) Blob(context.Context, string) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(o.file, 0, o.file.Size())), nil
}

// addLayer reads one layer into a tree, from its file where it has one.
func addLayer(ctx context.Context, src Source, d descriptor, diffID string, left *int64, read func(n int), tree *flat.Tree, files *placed) error {
	f, err := lies(src, d, diffID)
	if err != nil {
		return err
	}
	if f == nil {
		return readLayer(ctx, src, d, diffID, left, read, tree.Layer)
	}
	*files = append(*files, f)
	hash := func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
	if err := readLayer(ctx, opened{src, f}, d, diffID, left, read, hash); err != nil {
		return err
	}
	return tree.LayerIn(f, d.Size)
}
