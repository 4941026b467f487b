// SPDX-License-Identifier: Apache-2.0

package fattest

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// Fsck lets fsck.vfat look at a volume, in a copy that has holes where the
// volume has zeros. It skips the test where there is no such tool.
func Fsck(t testing.TB, what string, volume io.ReaderAt, size int64) {
	t.Helper()
	tool, err := exec.LookPath("fsck.vfat")
	if err != nil {
		if tool, err = exec.LookPath("/usr/sbin/fsck.vfat"); err != nil {
			t.Skipf("SKIP fsck.vfat: %v", err)
		}
	}
	name := filepath.Join(t.TempDir(), "volume")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	err = f.Truncate(size)
	for at := int64(0); err == nil && at < size; at += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), size-at)]
		if _, err = volume.ReadAt(b, at); err == nil && slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
			_, err = f.WriteAt(b, at)
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool, "-n", name).CombinedOutput(); err != nil {
		t.Fatalf("%s: fsck.vfat: %v\n%s", what, err, out)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}
