// SPDX-License-Identifier: Apache-2.0

package flash

import (
	"bytes"
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
	Holds  string `json:"holds"`  // what was found on it; "": empty
	InUse  string `json:"inUse"`  // who uses it; "": nobody
	File   bool   `json:"file"`   // a file that stands for a disk
}

// window is how much of both ends is looked at: every partition table, and
// what file systems, RAID and LVM begin or end with, stands in it.
const window = 1 << 20

// look collects the facts. sys is /sys, mounts the text of
// /proc/self/mountinfo.
func look(path, sys, mounts string) (Device, error) {
	d := Device{Path: path, Sector: 512}
	st, err := os.Stat(path)
	if err != nil {
		return d, err
	}
	f, err := os.Open(path)
	if err != nil {
		return d, err
	}
	defer f.Close()
	switch {
	case st.Mode().IsRegular():
		d.File, d.Size = true, st.Size()
	case st.Mode()&fs.ModeDevice != 0 && st.Mode()&fs.ModeCharDevice == 0:
		if d.Size, err = f.Seek(0, io.SeekEnd); err != nil {
			return d, fmt.Errorf("size of %s: %w", path, err)
		}
		if d.Sector, err = unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err != nil {
			return d, fmt.Errorf("sectors of %s: %w", path, err)
		}
		if err := d.describe(sys, mounts); err != nil {
			return d, err
		}
	default:
		return d, fmt.Errorf("%s is no disk and no file", path)
	}
	d.Holds, err = holds(f, d.Size)
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
		return fmt.Errorf("%s is a partition; name the whole disk", d.Path)
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

// signatures that people know by name; anything else that is not zero is data.
var signatures = []struct {
	at   int
	text string
	name string
}{
	{512, "EFI PART", "a GPT partition table"}, {4096, "EFI PART", "a GPT partition table"}, {510, "\x55\xaa", "a boot sector"},
	{1080, "\x53\xef", "an ext file system"}, {0, "XFSB", "an XFS file system"}, {65600, "_BHRfS_M", "a Btrfs file system"},
	{0, "LUKS\xba\xbe", "an encrypted volume"}, {536, "LVM2", "an LVM volume"}, {32769, "CD001", "an ISO image"},
}

// holds says what a disk has; "" when both ends are zeros.
func holds(r io.ReaderAt, size int64) (string, error) {
	head := make([]byte, min(window, size))
	tail := make([]byte, min(window, size))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("look at the disk: %w", err)
	}
	if _, err := r.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("look at the disk: %w", err)
	}
	for _, s := range signatures {
		if end := s.at + len(s.text); end <= len(head) && string(head[s.at:end]) == s.text {
			return s.name, nil
		}
	}
	if len(bytes.TrimLeft(head, "\x00")) > 0 || len(bytes.TrimLeft(tail, "\x00")) > 0 {
		return "data", nil
	}
	return "", nil
}
