// SPDX-License-Identifier: Apache-2.0

package flash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Device is what is known of the disk that would be written.
type Device struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	Sector int    `json:"sector"` // bytes of a logical sector
	Model  string `json:"model"`
	Serial string `json:"serial"` // "": it has none, or does not say
	Holds  string `json:"holds"`  // what was found on it; "": nothing
	Looked int64  `json:"looked"` // bytes that were read to find that
	InUse  string `json:"inUse"`  // who uses it; "": nobody
	File   bool   `json:"file"`   // a file that stands for a disk
}

// look collects the facts. sys is /sys, mounts the text of
// /proc/self/mountinfo, written how many bytes from the beginning would be
// overwritten.
func look(ctx context.Context, path, sys, mounts string, written int64, progress Progress) (Device, error) {
	d := Device{Path: path, Sector: 512}
	st, err := os.Stat(path)
	if err != nil {
		return d, err
	}
	disk := st.Mode()&fs.ModeDevice != 0 && st.Mode()&fs.ModeCharDevice == 0
	if !disk && !st.Mode().IsRegular() { // opening another device may act on it, or wait for ever
		return d, fmt.Errorf("%w: %s is neither a disk nor a file that stands for one; name the whole disk, such as /dev/sdb (lsblk lists them)", ErrRefused, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return d, advise(err, os.Geteuid())
	}
	defer f.Close()
	if !disk {
		d.File, d.Size = true, st.Size()
	} else {
		if d.Size, err = f.Seek(0, io.SeekEnd); err != nil {
			return d, fmt.Errorf("size of %s: %w", path, err)
		}
		if d.Sector, err = unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err != nil {
			return d, fmt.Errorf("sectors of %s: %w", path, err)
		}
		if err := d.describe(sys, mounts); err != nil {
			return d, err
		}
	}
	d.Holds, d.Looked, err = holds(ctx, f, d.Size, written, progress)
	return d, err
}

// describe asks sysfs.
func (d *Device) describe(sys, mounts string) error {
	real, err := filepath.EvalSymlinks(d.Path)
	if err != nil {
		return err
	}
	name := filepath.Base(real)
	block := filepath.Join(sys, "class/block", name)
	if _, err := os.Stat(filepath.Join(block, "partition")); err == nil {
		return fmt.Errorf("%w: %s is a partition; name the whole disk, such as /dev/sdb (lsblk lists them)", ErrRefused, d.Path)
	}
	d.Model = first(block, "device/model")
	d.Serial = first(block, "device/serial", "serial", "device/wwid", "wwid")
	var using []string
	parts, err := filepath.Glob(filepath.Join(block, "*", "partition"))
	if err != nil {
		return err
	}
	names := []string{name}
	for _, p := range parts {
		names = append(names, filepath.Base(filepath.Dir(p)))
	}
	for _, n := range names {
		holders, err := os.ReadDir(filepath.Join(sys, "class/block", n, "holders"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, h := range holders {
			using = append(using, n+" by "+h.Name())
		}
		number := strings.TrimSpace(first(filepath.Join(sys, "class/block", n), "dev"))
		for line := range strings.Lines(mounts) {
			if w := strings.Fields(line); len(w) > 4 && number != "" && w[2] == number {
				using = append(using, n+" mounted on "+w[4])
			}
		}
	}
	d.InUse = strings.Join(using, ", ")
	return nil
}

// first is the first of some attributes that says anything.
func first(dir string, names ...string) string {
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(dir, n))
		if s := strings.TrimSpace(string(b)); err == nil && s != "" {
			return s
		}
	}
	return ""
}
