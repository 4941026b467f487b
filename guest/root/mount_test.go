// SPDX-License-Identifier: Apache-2.0

package root

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/wire"
)

func TestOptions(t *testing.T) {
	const always = unix.MS_NOSUID | unix.MS_NODEV
	const size = "size=8m,mode=1770,uid=5,gid=6"
	for name, c := range map[string]struct {
		kind     string
		readOnly bool
		want     mnt
	}{
		"volume":           {"volume", false, mnt{kind: "ext4", flags: always}},
		"read-only volume": {"volume", true, mnt{kind: "ext4", flags: always | unix.MS_RDONLY}},
		"tmpfs":            {"tmpfs", false, mnt{"tmpfs", "", "tmpfs", always | unix.MS_NOEXEC, size}},
		"read-only tmpfs":  {"tmpfs", true, mnt{"tmpfs", "", "tmpfs", always | unix.MS_NOEXEC | unix.MS_RDONLY, size}},
	} {
		got, err := options(wire.Mount{Type: c.kind, ReadOnly: c.readOnly, SizeMiB: 8, Mode: 0o1770, UID: 5, GID: 6})
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
	if got, err := options(wire.Mount{Type: "bind"}); err == nil {
		t.Errorf("an unknown type gave %+v", got)
	}
}

// What the kernel was told is what it says of the mounts afterwards.
func TestMountsOfTheKernel(t *testing.T) {
	dir := t.TempDir()
	result := make(chan func(), 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, and its mounts, end here
		result <- mountInNamespace(t, dir)
	}()
	(<-result)()
}

func mountInNamespace(t *testing.T, dir string) func() {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return func() { t.Skipf("SKIP mounts of the kernel: no namespace: %v", err) }
	}
	if err := (mnt{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""}).do(); err != nil {
		return func() { t.Fatal(err) }
	}
	s := Spec{Mounts: []wire.Mount{
		{Type: "tmpfs", Path: "/a", SizeMiB: 1, Mode: 0o755},
		{Type: "tmpfs", Path: "/a/b", SizeMiB: 1, Mode: 0o755, ReadOnly: true}, // in a folder that the outer mount lacks
	}}
	if err := os.Mkdir(filepath.Join(dir, "a"), 0o755); err != nil {
		return func() { t.Fatal(err) }
	}
	if err := s.mounts(dir, []string{"/a", "/a/b"}); err != nil {
		return func() { t.Fatal(err) }
	}
	info, err := os.ReadFile("/proc/thread-self/mountinfo")
	return func() {
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"a": "rw", "a/b": "ro"} {
			at := filepath.Join(dir, name) + " tmpfs "
			lines := slices.DeleteFunc(Mounts(string(info)), func(line string) bool { return !strings.HasPrefix(line, at) })
			if len(lines) != 1 {
				t.Fatalf("%s: %q", name, lines)
			}
			has := strings.Split(strings.TrimPrefix(lines[0], at), ",")
			for _, o := range []string{want, "nosuid", "nodev", "noexec"} {
				if !slices.Contains(has, o) {
					t.Errorf("%s is %q, want %s", name, has, o)
				}
			}
		}
	}
}

// A volume outlives the workload that wrote to it: a link that it left there
// must lead nowhere when something is mounted below.
func TestOpenFolder(t *testing.T) {
	top, out := t.TempDir(), t.TempDir()
	for _, dir := range []string{filepath.Join(top, "volume/real"), filepath.Join(out, "there")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"out": out, "up": "../..", "inside": "real", "dangling": filepath.Join(out, "none")} {
		if err := os.Symlink(target, filepath.Join(top, "volume", name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, good := range []string{"/volume", "/volume/real", "/volume/made/deep"} {
		f, err := openFolder(top, good)
		if err != nil {
			t.Errorf("%s: %v", good, err)
			continue
		}
		got, err1 := f.Stat()
		want, err2 := os.Stat(filepath.Join(top, good))
		if err := errors.Join(err1, err2, f.Close()); err != nil || !os.SameFile(got, want) {
			t.Errorf("%s: another folder: %v", good, err)
		}
	}
	for _, bad := range []string{"/volume/out", "/volume/out/there", "/volume/out/new", "/volume/up", "/volume/up/x", "/volume/inside", "/volume/dangling", "/volume/dangling/x"} {
		if f, err := openFolder(top, bad); err == nil {
			t.Errorf("%s leads to %s", bad, f.Name())
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	left, err := os.ReadDir(out)
	if err != nil || len(left) != 1 || left[0].Name() != "there" {
		t.Errorf("outside there is %v, %v", left, err)
	}
}

func TestOpenBeneath(t *testing.T) {
	top := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(top, "real"), 0o755), os.Symlink("real", filepath.Join(top, "link"))); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(top)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	}()
	for name, want := range map[string]error{"real": nil, ".": nil, "link": unix.ELOOP, "..": unix.EXDEV, "/": unix.EXDEV, "none": unix.ENOENT} {
		fd, err := openBeneath(dir, name)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if err == nil {
			if err := unix.Close(fd); err != nil {
				t.Error(err)
			}
		}
	}
}

// placeIn is a layer over an image whose folders are the test's own, so that
// it needs no root.
func placeIn(t *testing.T) Layer {
	t.Helper()
	l := Layer{Image: image(t), Dir: t.TempDir()}
	for _, dir := range []string{"proc", "sys", "dev", "run/data", "run/data/in", "srv"} {
		if err := os.Mkdir(filepath.Join(l.Image, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"info": "proc", "srv/disk": "/run/data", "again": "srv/../var/run"} {
		if err := os.Symlink(target, filepath.Join(l.Image, name)); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestPlace(t *testing.T) {
	mine := func(name string) wire.File {
		return wire.File{Path: name, Mode: 0o644, UID: os.Getuid(), GID: os.Getgid(), Content: []byte("x")}
	}
	s := Spec{
		Mounts: []wire.Mount{{Path: "/var/run/data/in"}, {Path: "/srv/disk"}},
		Files:  []wire.File{mine("/run/beside"), mine("/run/data2"), mine("/etc/resolv.conf"), mine("/srv/disk2")},
	}
	targets, err := s.place(placeIn(t))
	if err != nil || !slices.Equal(targets, []string{"/run/data", "/run/data/in"}) {
		t.Errorf("mounts go to %q, %v", targets, err)
	}
	if s.Mounts[0].Path != "/srv/disk" {
		t.Errorf("the mounts are not in the order of their targets: %+v", s.Mounts)
	}
}

// A file that a mount would cover is a mistake, or a trick: it is in the
// report, and the workload never sees it.
func TestPlaceRefusesHidden(t *testing.T) {
	for _, c := range []struct{ mount, file string }{
		{"/run/data", "/run/data/x"},
		{"/run/data", "/run/data/in/x"},
		{"/run/data", "/var/run/data/x"},       // a link to /run
		{"/run/data", "/again/data/x"},         // a link through links
		{"/run/data", "/srv/disk/x"},           // a link to the mount itself
		{"/var/run/data", "/run/data/x"},       // the mount's path has the link
		{"/srv/disk", "/again/data/in/x"},      // both have
		{"/srv", "/proc/x"},                    // what is always mounted
		{"/srv", "/sys/x"},                     //
		{"/srv", "/dev/x"},                     //
		{"/srv", "/info/x"},                    // a link to /proc
		{"/run/data", "/run/data"},             // the mount's own place
		{"/run/data/none", "/run/data/none/x"}, // not in the image
	} {
		s := Spec{Mounts: []wire.Mount{{Path: c.mount}}, Files: []wire.File{{Path: c.file, UID: os.Getuid(), GID: os.Getgid()}}}
		l := placeIn(t)
		if os.Getuid() != 0 && c.mount == "/run/data/none" {
			continue // makes a folder of uid 0
		}
		if _, err := s.place(l); !errors.Is(err, ErrPath) || !strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s below a mount on %s: %v", c.file, c.mount, err)
		}
		if _, err := os.Lstat(filepath.Join(l.Dir, c.file)); err == nil && c.file != c.mount {
			t.Errorf("%s was written all the same", c.file)
		}
	}
}

func TestPlaceRefusesMounts(t *testing.T) {
	for name, c := range map[string]struct{ link, target, mount string }{
		"the root by a link": {"top", "/", "/top"},
		"a file":             {"none", "/", "/usr/bin/app"},
	} {
		l := placeIn(t)
		if err := os.Symlink(c.target, filepath.Join(l.Image, c.link)); err != nil {
			t.Fatal(err)
		}
		if got, err := (Spec{Mounts: []wire.Mount{{Path: c.mount}}}).place(l); !errors.Is(err, ErrPath) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// /proc of the image is a link: what is mounted there would be elsewhere.
	l := placeIn(t)
	if err := errors.Join(os.Remove(filepath.Join(l.Image, "info")), os.Remove(filepath.Join(l.Image, "proc")), os.Symlink("run", filepath.Join(l.Image, "proc"))); err != nil {
		t.Fatal(err)
	}
	if got, err := (Spec{}).place(l); !errors.Is(err, ErrPath) {
		t.Errorf("/proc is a link: %v, %v", got, err)
	}
}
