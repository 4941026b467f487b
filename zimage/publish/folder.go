// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/zos-node/zos/zimage"
)

// Folder is a folder as a Bucket, laid out as a zimage.Store.
type Folder string

// Size implements Bucket.
func (f Folder) Size(_ context.Context, name string) (int64, error) {
	info, err := os.Lstat(filepath.Join(string(f), filepath.FromSlash(name)))
	if err != nil {
		return 0, fmt.Errorf("folder: %w", err)
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("folder: %s is %s, want a file", name, info.Mode())
	}
	if info.Size() == 0 { // what a lost power supply leaves: no file of a store is empty
		return 0, fmt.Errorf("folder: %s is empty: %w", name, fs.ErrNotExist)
	}
	return info.Size(), nil
}

// Get implements Bucket.
func (f Folder) Get(_ context.Context, name string) (io.ReadCloser, error) {
	file, err := os.Open(filepath.Join(string(f), filepath.FromSlash(name)))
	if err != nil {
		return nil, fmt.Errorf("folder: %w", err)
	}
	return file, nil
}

// Put implements Bucket.
func (f Folder) Put(_ context.Context, o zimage.Object) (err error) {
	path := filepath.Join(string(f), filepath.FromSlash(o.Name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("folder: %w", err)
	}
	out, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("folder: %w", err)
	}
	defer func() { err = errors.Join(err, out.Cleanup()) }()
	if _, err := io.Copy(out, o.Body); err != nil {
		return fmt.Errorf("folder: %w", err)
	}
	if err := out.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("folder: %w", err)
	}
	return nil
}
