// SPDX-License-Identifier: Apache-2.0

// Package volumes makes the writable disks of a deployment: one sparse raw
// file per volume, with an empty ext4 in it, deleted when the deployment ends.
//
// The file system is written by go-diskfs, without any program of the host;
// the tests let e2fsck and the kernel judge it.
package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/ext4"
	"golang.org/x/sys/unix"
)

// Volume is one disk on this node.
type Volume struct {
	Name       string `json:"name"`
	Path       string `json:"path"`
	SizeMiB    int64  `json:"sizeMiB"`
	Filesystem string `json:"filesystem"`
}

const (
	mib        = 1 << 20
	sectorSize = 512
	// inodeRatio is one inode per so many bytes: the tables are written out
	// in full, and on a node they cost memory.
	inodeRatio = 64 << 10
)

// Dir is where a node keeps all volumes, below its run directory.
func Dir(runDir string) string { return filepath.Join(runDir, "volumes") }

// Create makes the volume anew. A file that is there already is what a failed
// earlier try left: nobody's data, as a volume lives as long as its deployment.
func (v Volume) Create() (err error) {
	if v.Filesystem != "ext4" {
		return fmt.Errorf("volume %s: filesystem %q, this node makes ext4 only", v.Name, v.Filesystem)
	}
	if err := os.MkdirAll(filepath.Dir(v.Path), 0o700); err != nil {
		return fmt.Errorf("volume %s: %w", v.Name, err)
	}
	f, err := os.OpenFile(v.Path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("volume %s: %w", v.Name, err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(fmt.Errorf("volume %s: %w", v.Name, err), v.Delete())
		}
	}()
	if err := f.Truncate(v.SizeMiB * mib); err != nil {
		return fmt.Errorf("size: %w", err)
	}
	if _, err := ext4.Create(file.New(f, false), v.SizeMiB*mib, 0, sectorSize, &ext4.Params{VolumeName: v.Name, InodeRatio: inodeRatio}); err != nil {
		return fmt.Errorf("make ext4: %w", err)
	}
	return nil
}

// Delete removes the volume; one that is gone already is no error.
func (v Volume) Delete() error {
	if err := os.Remove(v.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete volume %s: %w", v.Name, err)
	}
	// The folder goes with the last one.
	if err := os.Remove(filepath.Dir(v.Path)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("delete folder of volume %s: %w", v.Name, err)
	}
	return nil
}
