// SPDX-License-Identifier: Apache-2.0

package hypervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/google/renameio/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/mkuimage/cpio"
)

// maxArchive bounds what the hypervisor's archive may unpack to.
const maxArchive = 256 << 20

// Unpack puts the files of the hypervisor's archive below root and removes the
// archive. One that is not there was unpacked before; an agent that died in the
// middle of it does it again. The archive came with the image, as everything
// else in memory; Read holds the program against its digest.
func Unpack(archive, root string) error {
	packed, err := os.ReadFile(archive)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hypervisor: %w", err)
	}
	dec, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("hypervisor: %s: %w", archive, err)
	}
	defer dec.Close()
	plain, err := io.ReadAll(io.LimitReader(dec, maxArchive))
	if err == nil {
		err = cpio.ForEachRecord(cpio.Newc.Reader(bytes.NewReader(plain)), func(r cpio.Record) error { return put(r, root) })
	}
	if err != nil {
		return fmt.Errorf("hypervisor: unpack %s: %w", archive, err)
	}
	if err := os.Remove(archive); err != nil {
		return fmt.Errorf("hypervisor: %w", err)
	}
	debug.FreeOSMemory() // it was unpacked in memory: that is for guests again
	return nil
}

// put writes one file, whole or not at all.
func put(r cpio.Record, root string) error {
	if !filepath.IsLocal(r.Name) {
		return fmt.Errorf("%q is no path of an image", r.Name)
	}
	at := filepath.Join(root, r.Name)
	mode := fs.FileMode(r.Mode & 0o777)
	switch r.Mode & cpio.S_IFMT {
	case cpio.S_IFDIR:
		return os.MkdirAll(at, mode)
	case cpio.S_IFREG:
		content, err := io.ReadAll(io.NewSectionReader(r.ReaderAt, 0, int64(r.FileSize)))
		if err != nil {
			return err
		}
		return renameio.WriteFile(at, content, mode, renameio.IgnoreUmask())
	case cpio.S_IFLNK:
		target, err := io.ReadAll(io.NewSectionReader(r.ReaderAt, 0, int64(r.FileSize)))
		if err != nil {
			return err
		}
		return renameio.Symlink(string(target), at)
	}
	return fmt.Errorf("%s: no file, folder or link", r.Name)
}
