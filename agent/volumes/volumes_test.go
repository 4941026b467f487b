// SPDX-License-Identifier: Apache-2.0

package volumes

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestE2fsckIsClean(t *testing.T) {
	if _, err := exec.LookPath("e2fsck"); err != nil {
		t.Skip("SKIP TestE2fsckIsClean: no e2fsck")
	}
	for _, size := range []int64{16, 17, 64, 100, 129, 1024} {
		v := Volume{Name: "data", Path: filepath.Join(t.TempDir(), "v", "data.raw"), SizeMiB: size, Filesystem: "ext4"}
		if err := v.Create(); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("e2fsck", "-fn", v.Path).CombinedOutput(); err != nil {
			t.Errorf("%d MiB: %v\n%s", size, err, out)
		}
		st, err := os.Stat(v.Path)
		if err != nil || st.Size() != size<<20 {
			t.Errorf("%d MiB: %v %v", size, st, err)
		}
		for range 2 {
			if err := v.Delete(); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat(filepath.Dir(v.Path)); !errors.Is(err, fs.ErrNotExist) {
			t.Error("the folder is left")
		}
	}
}

// TestKernelMounts lets the kernel use what was made: write, remount, read.
func TestKernelMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP TestKernelMounts: needs root to mount")
	}
	dir := t.TempDir()
	v := Volume{Name: "data", Path: dir + "/v/data.raw", SizeMiB: 64, Filesystem: "ext4"}
	if err := v.Create(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", v.Path).Output()
	if err != nil {
		t.Skip("SKIP TestKernelMounts: no loop device: " + err.Error())
	}
	loop := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if err := exec.Command("losetup", "-d", loop).Run(); err != nil {
			t.Error(err)
		}
	})
	mnt := dir + "/mnt"
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := unix.Mount(loop, mnt, "ext4", 0, ""); errors.Is(err, unix.ENODEV) {
			t.Skip("SKIP TestKernelMounts: this kernel has no ext4")
		} else if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			err = os.WriteFile(mnt+"/x", []byte(strings.Repeat("x", 1<<20)), 0o600)
		} else {
			var b []byte
			if b, err = os.ReadFile(mnt + "/x"); err == nil && len(b) != 1<<20 {
				t.Errorf("read %d bytes back", len(b))
			}
		}
		if err := errors.Join(err, unix.Unmount(mnt, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("e2fsck", "-fn", v.Path).CombinedOutput(); err != nil {
		t.Errorf("after use: %v\n%s", err, out)
	}
}

func TestOnlyExt4(t *testing.T) {
	v := Volume{Name: "data", Path: filepath.Join(t.TempDir(), "d", "x"), SizeMiB: 64, Filesystem: "xfs"}
	if err := v.Create(); err == nil {
		t.Error("made xfs")
	}
}
