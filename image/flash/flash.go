// SPDX-License-Identifier: Apache-2.0

package flash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/image"
)

// ErrRefused says that the disk is not to be written. The text says what has
// to be different.
var ErrRefused = errors.New("refused")

// Plan is what would happen.
type Plan struct {
	Image   string `json:"image"`
	Kind    string `json:"kind"`    // of the image: image.KindDisk, or what cannot be flashed
	Version string `json:"version"` // "" where a medium has none beside its UKI
	Size    int64  `json:"size"`    // of the image
	Seed    []byte `json:"-"`       // on its boot partition, nil for none; it holds a secret
	Device  Device `json:"device"`
	Refused string `json:"refused"` // why nothing will be written; "": it may be
}

// Progress hears how far a step is, in bytes.
type Progress func(step string, done, total int64)

// Look makes the plan. serial is what the operator named, or "". It reads all of
// the disk that the image would cover, which progress (may be nil) hears of.
func Look(ctx context.Context, img, device, serial string, progress Progress) (Plan, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Plan{}, fmt.Errorf("flash: %w", err)
	}
	m, err := image.Open(img)
	if err != nil {
		return Plan{}, fmt.Errorf("flash: %w", err)
	}
	st, err := os.Stat(img)
	if err != nil {
		return Plan{}, fmt.Errorf("flash: %w", err)
	}
	d, err := look(ctx, device, "/sys", string(mounts), st.Size(), progress)
	if err != nil {
		return Plan{}, fmt.Errorf("flash: %w", err)
	}
	if d.File && m.Sector != 0 {
		d.Sector = m.Sector // a file has no sectors of its own
	}
	p := Plan{Image: img, Kind: m.Kind, Version: m.Version, Size: st.Size(), Seed: m.Seed, Device: d}
	p.Refused = decide(m.Kind, m.Sector, p.Size, d, serial)
	return p, nil
}

// decide says why a disk must not be written; "" when it may.
func decide(kind string, sector int, size int64, d Device, serial string) string {
	switch {
	case kind == image.KindISO:
		return "the image is an ISO: flash node.img, or node-4k.img. An ISO goes onto a stick byte for byte, by what asks nothing and checks nothing: dd if=node.iso of=/dev/sdX bs=4M conv=fsync"
	case kind != image.KindDisk:
		return fmt.Sprintf("the image is of kind %q: flash node.img, or node-4k.img", kind)
	case d.InUse != "":
		return "the disk is in use: " + d.InUse + ". Unmount it, or choose another disk"
	case d.Size < size:
		return fmt.Sprintf("the disk has %d bytes, the image needs %d", d.Size, size)
	case d.Sector != sector:
		return fmt.Sprintf("the disk has sectors of %d bytes, the image is for %d: take node.img for 512, node-4k.img for 4096", d.Sector, sector)
	case serial != "" && d.Serial == "":
		return "the disk does not tell its serial number, so it cannot be the one you named"
	case serial != "" && serial != d.Serial:
		return fmt.Sprintf("the disk's serial number is %q, not %q", d.Serial, serial)
	case d.Holds != "" && d.Serial == "":
		return "the disk is not empty (" + d.Holds + ") and has no serial number to name it by. Wipe it by hand if it is the right one"
	case d.Holds != "" && serial == "":
		return fmt.Sprintf("the disk is not empty (%s). If it is the right one, add --serial %q; everything on it is lost", d.Holds, d.Serial)
	}
	return ""
}

const chunk = 1 << 20

// Write does what the plan says, and reads back what it wrote. Cancelled, it
// leaves a disk that does not boot: the partition tables come last.
func (p Plan) Write(ctx context.Context, progress Progress) error {
	if p.Refused != "" {
		return fmt.Errorf("%w: %s", ErrRefused, p.Refused)
	}
	src, err := os.Open(p.Image)
	if err != nil {
		return fmt.Errorf("flash: %w", err)
	}
	defer src.Close()
	flags := os.O_RDWR
	if !p.Device.File {
		flags |= unix.O_EXCL // the kernel says no while anybody uses the disk
	}
	dst, err := os.OpenFile(p.Device.Path, flags, 0)
	if err != nil {
		return fmt.Errorf("flash %s: %w", p.Device.Path, advise(err, os.Geteuid()))
	}
	err = p.write(ctx, src, dst, progress)
	if err == nil && !p.Device.File {
		// The kernel still has the partitions of before. Not every disk has any for it,
		// and udev may be looking this moment: the disk itself is right in any case.
		_ = unix.IoctlSetInt(int(dst.Fd()), unix.BLKRRPART, 0)
	}
	if err := errors.Join(err, dst.Close()); err != nil {
		return fmt.Errorf("flash %s: %w", p.Device.Path, err)
	}
	return nil
}

// advise says what to do about a disk that may not be opened.
func advise(err error, uid int) error {
	switch {
	case errors.Is(err, fs.ErrPermission) && uid == 0:
		return fmt.Errorf("%w: root may not either, here: a container without this device, or a disk that is locked (blockdev --getro says 1); run the same where the disk is, or unlock it", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: disks are root's to read and write; run the same with sudo", err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: somebody uses it; unmount it, or choose another disk", err)
	}
	return err
}

// write does the work. What is left by one that fails, its error says.
func (p Plan) write(ctx context.Context, src, dst *os.File, progress Progress) error {
	if err := p.put(ctx, src, dst, progress); err != nil {
		return fmt.Errorf("%w; the disk is half-written, what was on it is lost, and it does not boot: flash it again", err)
	}
	if err := p.verify(ctx, src, dst, progress); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%w; the disk is written, but was not read back to its end: flash it again to be sure of it", err)
		}
		return err
	}
	return nil
}

func (p Plan) put(ctx context.Context, src, dst *os.File, progress Progress) error {
	// Old tables go first, at both ends, so that half a write is no boot disk.
	blank := make([]byte, window)
	for _, at := range []int64{0, p.Device.Size - window} {
		if _, err := dst.WriteAt(blank, at); err != nil {
			return fmt.Errorf("wipe: %w", err)
		}
	}
	// The image's own tables stand in its first and last MiB. They are made
	// anew: the second one belongs at the end of the disk, wherever that is.
	from, to := int64(window), p.Size-window
	if err := each(ctx, "writing", from, to, progress, func(b []byte, at int64) error {
		if _, err := src.ReadAt(b, at); err != nil {
			return fmt.Errorf("read %s: %w", p.Image, err)
		}
		_, err := dst.WriteAt(b, at)
		return err
	}); err != nil {
		return err
	}
	if err := dst.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := image.CopyTable(src, dst, p.Device.Sector, p.Device.Size); err != nil {
		return err
	}
	if err := dst.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// verify reads the disk and not the memory that remembers the writing.
func (p Plan) verify(ctx context.Context, src, dst *os.File, progress Progress) error {
	if err := unix.Fadvise(int(dst.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("forget what was cached: %w", err)
	}
	want := make([]byte, chunk)
	err := each(ctx, "verifying", window, p.Size-window, progress, func(b []byte, at int64) error {
		want := want[:len(b)]
		if _, err := src.ReadAt(want, at); err != nil {
			return fmt.Errorf("read %s: %w", p.Image, err)
		}
		if _, err := dst.ReadAt(b, at); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		if !bytes.Equal(b, want) {
			return fmt.Errorf("the disk does not hold what was written between bytes %d and %d: it is broken", at, at+int64(len(b)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	a, err := image.Open(p.Image)
	if err != nil {
		return err
	}
	b, err := image.Open(p.Device.Path)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !a.Same(b) || !bytes.Equal(a.Seed, b.Seed) {
		return errors.New("read back: the disk holds another image")
	}
	return nil
}

func each(ctx context.Context, step string, from, to int64, progress Progress, do func([]byte, int64) error) error {
	buf := make([]byte, chunk)
	for at := from; at < to; at += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(chunk, to-at)]
		if err := do(b, at); err != nil {
			return err
		}
		if progress != nil {
			progress(step, at+int64(len(b))-from, to-from)
		}
	}
	return nil
}
