// SPDX-License-Identifier: Apache-2.0

package root

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/wire"
)

// Spec is everything that the root is made of.
type Spec struct {
	Device string // verity device
	Files  []wire.File
	Mounts []wire.Mount
	// Volume finds the block device of a volume by its disk's serial.
	Volume func(serial string) (string, error)
}

const (
	stage    = "/stage" // a folder of the initramfs
	imageDir = stage + "/image"
	layerDir = stage + "/layer"
	rootDir  = stage + "/root"
)

// mnt is one mount of a fixed table.
type mnt struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func (m mnt) do() error {
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s: %w", m.target, err)
	}
	return nil
}

// Build makes the whole root in the calling thread's mount namespace and
// enters it. The thread must be locked, and its own (see process.Thread).
func Build(s Spec) error {
	if err := (mnt{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""}).do(); err != nil {
		return err
	}
	if err := (mnt{"tmpfs", stage, "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0700,size=1m"}).do(); err != nil {
		return err
	}
	for _, dir := range []string{imageDir, layerDir, rootDir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("root: %w", err)
		}
	}
	if err := (mnt{s.Device, imageDir, "erofs", unix.MS_RDONLY | unix.MS_NODEV, ""}).do(); err != nil {
		return err
	}
	targets, err := s.layer()
	if err != nil {
		return err
	}
	lower := "lowerdir=" + layerDir + ":" + imageDir + ",redirect_dir=nofollow,metacopy=off,index=off,xino=off"
	if err := (mnt{"overlay", rootDir, "overlay", unix.MS_RDONLY | unix.MS_NODEV, lower}).do(); err != nil {
		return err
	}
	if err := system(rootDir); err != nil {
		return err
	}
	if err := s.mounts(rootDir, targets); err != nil {
		return err
	}
	return enter()
}

// layer writes the folder over the image and returns where each mount goes,
// links resolved.
func (s Spec) layer() ([]string, error) {
	if err := (mnt{"tmpfs", layerDir, "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"}).do(); err != nil {
		return nil, err
	}
	targets, err := s.place(Layer{Image: imageDir, Dir: layerDir})
	if err != nil {
		return nil, err
	}
	// The layer is finished: not even a mistake of ours writes to it again.
	return targets, mnt{"", layerDir, "", unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV, ""}.do()
}

// place puts everything into the layer and sorts the mounts, outer ones first.
func (s Spec) place(l Layer) ([]string, error) {
	if err := l.Attributes(); err != nil {
		return nil, err
	}
	sort.SliceStable(s.Mounts, func(i, j int) bool { return s.Mounts[i].Path < s.Mounts[j].Path })
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if at, err := l.Folder(dir); err != nil || at != dir {
			return nil, fmt.Errorf("%w: %s leads to %s: %w", ErrPath, dir, at, err)
		}
	}
	var targets []string
	for _, m := range s.Mounts {
		at, err := Resolve(l.Image, m.Path, true)
		if err != nil {
			return nil, err
		}
		if !under(at, append(targets, "/dev", "/proc", "/sys")) { // else the mount above has to have it
			if at, err = l.Folder(m.Path); err != nil {
				return nil, err
			}
		}
		if at == "/" {
			return nil, fmt.Errorf("%w: nothing can be mounted on %s", ErrPath, m.Path)
		}
		targets = append(targets, at)
	}
	for _, f := range s.Files {
		at, err := Resolve(l.Image, f.Path, false)
		if err != nil {
			return nil, err
		}
		if under(at, append(targets, "/dev", "/proc", "/sys")) {
			return nil, fmt.Errorf("%w: file %s would be hidden by a mount", ErrPath, f.Path)
		}
		if err := l.File(f); err != nil {
			return nil, err
		}
	}
	return targets, nil
}

func under(name string, dirs []string) bool {
	for _, d := range dirs {
		if name == d || strings.HasPrefix(name, d+"/") {
			return true
		}
	}
	return false
}

// system mounts /proc, /sys and /dev.
func system(root string) error {
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	in := func(name string) string { return filepath.Join(root, name) }
	for _, m := range []mnt{
		// A process sees its own user's, and PID 1 with all its capabilities is
		// beyond even uid 0 of the workload.
		{"proc", in("proc"), "proc", safe, "hidepid=invisible"},
		{"sysfs", in("sys"), "sysfs", safe | unix.MS_RDONLY, ""},
		{"tmpfs", in("dev"), "tmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0755,size=64k"},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	// uid 0 owns these files, with or without capabilities.
	for _, name := range []string{"sys", "sysrq-trigger", "irq", "bus", "fs", "acpi"} {
		if err := bind(in("proc/"+name), in("proc/"+name), safe|unix.MS_RDONLY); err != nil {
			return err
		}
	}
	if err := devices(in("dev")); err != nil {
		return err
	}
	for _, name := range []string{"kcore", "keys", "key-users", "timer_list", "kmsg"} {
		if err := bind(in("dev/null"), in("proc/"+name), unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_RDONLY); err != nil {
			return err
		}
	}
	return nil
}

// bind mounts a path somewhere and then makes that mount what flags say; what
// this kernel does not have needs no cover.
func bind(from, to string, flags uintptr) error {
	if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := (mnt{from, to, "", unix.MS_BIND, ""}).do(); err != nil {
		return err
	}
	return mnt{"", to, "", unix.MS_BIND | unix.MS_REMOUNT | flags, ""}.do()
}

// devices are the ones that any program may expect, and no disk.
func devices(dev string) error {
	for name, number := range map[string][2]uint32{"null": {1, 3}, "zero": {1, 5}, "full": {1, 7}, "random": {1, 8}, "urandom": {1, 9}, "tty": {5, 0}} {
		at := filepath.Join(dev, name)
		if err := unix.Mknod(at, unix.S_IFCHR|0o666, int(unix.Mkdev(number[0], number[1]))); err != nil {
			return fmt.Errorf("device %s: %w", name, err)
		}
		if err := os.Chmod(at, 0o666); err != nil {
			return fmt.Errorf("device %s: %w", name, err)
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return fmt.Errorf("device %s: %w", name, err)
		}
	}
	for _, name := range []string{"pts", "shm"} {
		if err := os.Mkdir(filepath.Join(dev, name), 0o755); err != nil {
			return fmt.Errorf("device %s: %w", name, err)
		}
	}
	for _, m := range []mnt{
		{"devpts", filepath.Join(dev, "pts"), "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{"tmpfs", filepath.Join(dev, "shm"), "tmpfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=1777,size=64m"},
		{"", dev, "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NOEXEC, ""},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}

// mounts mounts what the spec asks for, outer ones first.
func (s Spec) mounts(root string, targets []string) error {
	for i, m := range s.Mounts {
		if err := s.mount(root, targets[i], m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Path, err)
		}
	}
	return nil
}

// options are what mount(2) gets for a mount of the spec, but for its source
// and target.
func options(m wire.Mount) (o mnt, err error) {
	o.flags = unix.MS_NOSUID | unix.MS_NODEV
	switch m.Type {
	case "tmpfs":
		// noexec: all code comes from the image, that is, from checked blocks.
		o.flags |= unix.MS_NOEXEC
		o.source, o.kind = "tmpfs", "tmpfs"
		o.data = fmt.Sprintf("size=%dm,mode=%04o,uid=%d,gid=%d", m.SizeMiB, m.Mode&0o7777, m.UID, m.GID)
	case "volume":
		o.kind = "ext4"
	default:
		return mnt{}, fmt.Errorf("unknown type %q", m.Type)
	}
	if m.ReadOnly {
		o.flags |= unix.MS_RDONLY
	}
	return o, nil
}

func (s Spec) mount(root, target string, m wire.Mount) (err error) {
	o, err := options(m)
	if err != nil {
		return err
	}
	if m.Type == "volume" {
		if o.source, err = s.Volume(m.Serial); err != nil {
			return err
		}
	}
	at, err := openFolder(root, target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	if err := unix.Mount(o.source, fmt.Sprintf("/proc/self/fd/%d", at.Fd()), o.kind, o.flags, o.data); err != nil {
		return err
	}
	if m.Type != "volume" || m.ReadOnly {
		return nil
	}
	top, err := openFolder(root, target) // again: now it is what is mounted there
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	if err := top.Chown(m.UID, m.GID); err != nil {
		return err
	}
	return top.Chmod(unixMode(m.Mode))
}

// openFolder opens a folder below root without following a link, not even one
// that stands in a volume and was made by an earlier run of the workload. A
// folder that an outer mount lacks is made there.
func openFolder(root, target string) (*os.File, error) {
	dir, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	for _, part := range strings.Split(path.Clean(target)[1:], "/") {
		fd, err := openBeneath(dir, part)
		if errors.Is(err, unix.ENOENT) {
			if err = unix.Mkdirat(int(dir.Fd()), part, 0o755); err == nil {
				fd, err = openBeneath(dir, part)
			}
		}
		if err = errors.Join(err, dir.Close()); err != nil {
			return nil, err
		}
		dir = os.NewFile(uintptr(fd), part)
	}
	return dir, nil
}

// openBeneath opens a folder in another: neither a link nor ".." leads on.
func openBeneath(dir *os.File, name string) (int, error) {
	return unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{Flags: unix.O_DIRECTORY | unix.O_RDONLY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
}

// enter makes rootDir the namespace's root; see the package comment.
func enter() error {
	steps := []struct {
		name string
		do   func() error
	}{
		{"enter the stage", func() error { return unix.Chdir(stage) }},
		{"move the stage over the initramfs", func() error { return unix.Mount(".", "/", "", unix.MS_MOVE, "") }},
		{"make the stage the root", func() error { return unix.Chroot(".") }},
		{"enter the root", func() error { return unix.Chdir(strings.TrimPrefix(rootDir, stage)) }},
		{"pivot", func() error { return unix.PivotRoot(".", ".") }},
		{"detach the stage", func() error { return unix.Unmount(".", unix.MNT_DETACH) }},
		{"stand in the root", func() error { return unix.Chdir("/") }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// Leave unmounts the volumes in the thread that built the root, inner ones
// first. The workload is gone by then; a volume that is busy all the same is
// made read-only, which writes everything out.
func (s Spec) Leave() error {
	var errs []error
	for i := len(s.Mounts) - 1; i >= 0; i-- {
		m := s.Mounts[i]
		if m.Type != "volume" {
			continue
		}
		if err := unix.Unmount(m.Path, 0); err == nil || errors.Is(err, unix.EINVAL) {
			continue // EINVAL: it was never mounted
		}
		if err := unix.Mount("", m.Path, "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.Path, err))
		}
	}
	return errors.Join(errs...)
}

// Mounts reads back what the calling thread's namespace has, a line for each
// mount: "path fstype options".
func Mounts(mountinfo string) []string {
	lines := []string{}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(kind) < 1 {
			continue
		}
		lines = append(lines, f[4]+" "+kind[0]+" "+f[5])
	}
	return lines
}
