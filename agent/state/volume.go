// SPDX-License-Identifier: Apache-2.0

package state

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/ext4"
	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/luks"
	"github.com/zos-node/zos/kernel/dm"
)

const (
	// deviceName of the decrypted volume, as the kernel calls it.
	deviceName = "zos-state"
	mountFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	blockSize  = 4096
	chunk      = 1 << 20
)

// decrypt makes the device of the plain data over a partition.
func decrypt(dev string, p *partition, key []byte) (device string, err error) {
	number, err := dm.Number(p.device)
	if err != nil {
		return "", fmt.Errorf("state partition: %w", err)
	}
	control, err := dm.Open(dev)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	// One that an agent left which died before it mounted it.
	if err := control.Remove(deviceName); err != nil {
		return "", err
	}
	return control.Create(deviceName, dm.Target{Kind: "crypt", Sectors: sectors(p.size), Table: table(number, key)})
}

func sectors(size int64) uint64 {
	return uint64((size - luks.DataOffset) / luks.SectorSize * luks.SectorSize / sectorSize)
}

// table is dm-crypt's line for what the LUKS2 header says.
func table(number string, key []byte) string {
	return fmt.Sprintf("aes-xts-plain64 %s 0 %s %d 1 sector_size:%d", hex.EncodeToString(key), number, luks.DataOffset/sectorSize, luks.SectorSize)
}

// makeFS makes an empty ext4 with a journal on a device. It is made in a file
// in memory, since what go-diskfs leaves out has to read as zeros, and a fresh
// encrypted volume holds noise.
func makeFS(device, tmp string, size int64) (err error) {
	f, err := os.CreateTemp(tmp, "ext4")
	if err != nil {
		return fmt.Errorf("make the state's file system: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("make the state's file system: %w", err)
	}
	if _, err := ext4.Create(file.New(f, false), size, 0, sectorSize, &ext4.Params{VolumeName: deviceName, SectorsPerBlock: blockSize / sectorSize,
		Features: []ext4.FeatureOpt{ext4.WithFeatureHasJournal(true), ext4.WithFeatureReservedGDTBlocksForExpansion(false)}}); err != nil {
		return fmt.Errorf("make the state's file system: %w", err)
	}
	out, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("make the state's file system: %w", err)
	}
	if err := errors.Join(copyAll(out, f, size), out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("write the state's file system: %w", err)
	}
	return nil
}

// copyAll copies holes as well: each reads as zeros.
func copyAll(to io.WriterAt, from io.ReaderAt, size int64) error {
	buf := make([]byte, chunk)
	for at := int64(0); at < size; at += chunk {
		b := buf[:min(chunk, size-at)]
		if _, err := from.ReadAt(b, at); err != nil {
			return err
		}
		if _, err := to.WriteAt(b, at); err != nil {
			return err
		}
	}
	return nil
}

func mount(device, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("mount the state: %w", err)
	}
	// A file system that finds itself damaged is read-only from then on: what the
	// node would write there fails, and is not lost unseen.
	if err := unix.Mount(device, dir, "ext4", mountFlags, "errors=remount-ro"); err != nil {
		return fmt.Errorf("mount the state: %s on %s: %w", device, dir, err)
	}
	return nil
}

// mounted says whether an earlier agent of this boot did it already.
func mounted(dir string) (bool, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("list mounts: %w", err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 4 && f[4] == filepath.Clean(dir) {
			return true, nil
		}
	}
	return false, nil
}
