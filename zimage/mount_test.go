// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/zimage/tree"
)

// TestKernelAgreesWithTar mounts each corner and compares it, name by name,
// with what GNU tar makes of the same layers.
func TestKernelAgreesWithTar(t *testing.T) {
	const skip = "SKIP TestKernelAgreesWithTar: "
	if os.Geteuid() != 0 {
		t.Skip(skip + "mounting needs root")
	}
	for _, tool := range []string{"mount", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(skip + "no " + tool)
		}
	}
	for _, c := range corners() {
		t.Run(c.name, func(t *testing.T) {
			if c.differ != "" {
				mounted(t, skip, ociImage(t, c.layers...), unnamedDirs(t, c.tars(t)))
				t.Logf("mounted, but not compared: %s", c.differ)
				return
			}
			untimed := unnamedDirs(t, c.tars(t))
			compare(t, mounted(t, skip, ociImage(t, c.layers...), untimed), describe(t, extract(t, c.layers), untimed))
		})
	}
	for _, c := range rawCorners() {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			untar(t, dir, c.tar)
			untimed := unnamedDirs(t, [][]byte{c.tar})
			compare(t, mounted(t, skip, ociImageOf(t, nil, c.tar), untimed), describe(t, dir, untimed))
		})
	}
	t.Run("sample", func(t *testing.T) {
		if got := mounted(t, skip, sample(t), func(string) bool { return false }); len(got) < 60 {
			t.Errorf("%d names", len(got))
		}
	})
}

// mounted describes what the kernel sees of an image.
func mounted(t *testing.T, skip string, img *memory, untimed func(dir string) bool) map[string]string {
	t.Helper()
	s, m, _ := converted(t, img)
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, assemble(t, s, m), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "erofs", "-o", "loop,ro", disk, dir).CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("unknown filesystem")) || bytes.Contains(out, []byte("loop device")) {
			t.Skipf(skip+"no EROFS or loop devices here: %s", out)
		}
		t.Fatalf("mount: %v: %s", err, out)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	return describe(t, dir, untimed)
}

// unnamedDirs tells the directories that no layer names. Their time is 1970
// by our rules, and whenever it was elsewhere. Every other time is compared.
func unnamedDirs(t testing.TB, tars [][]byte) func(dir string) bool {
	t.Helper()
	named := map[string]bool{}
	for _, b := range tars {
		r := tar.NewReader(bytes.NewReader(b))
		for {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Typeflag == tar.TypeDir {
				named[filepath.Clean("/"+h.Name)] = true
			}
		}
	}
	return func(dir string) bool { return !named[dir] }
}

// extract applies layers with GNU tar, and whiteouts by hand: what a layer
// hides is removed before its content is added.
func extract(t *testing.T, layers [][]item) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		var items []item
		for _, i := range l {
			parent, name := filepath.Split(i.Name)
			hidden, ok := strings.CutPrefix(name, ".wh.")
			if !ok {
				items = append(items, i)
				at := filepath.Join(dir, i.Name)
				if st, err := os.Lstat(at); err == nil && st.IsDir() != (i.Typeflag == tar.TypeDir) {
					if err := os.RemoveAll(at); err != nil { // tar alone would refuse
						t.Fatal(err)
					}
				}
				continue
			}
			targets := []string{filepath.Join(dir, parent, hidden)}
			if hidden == ".wh..opq" {
				var err error
				if targets, err = filepath.Glob(filepath.Join(dir, parent, "*")); err != nil {
					t.Fatal(err)
				}
			}
			for _, target := range targets {
				if err := os.RemoveAll(target); err != nil {
					t.Fatal(err)
				}
			}
		}
		before := dirTimes(t, dir)
		untar(t, dir, tarOf(t, items))
		for _, i := range items {
			if i.Typeflag == tar.TypeDir {
				delete(before, filepath.Join(dir, i.Name))
			}
		}
		for path, at := range before { // what stands in a directory is no reason for it to be newer
			if st := (unix.Stat_t{}); unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				if err := unix.UtimesNano(path, []unix.Timespec{at, at}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return dir
}

// dirTimes gives the times of all directories.
func dirTimes(t *testing.T, root string) map[string]unix.Timespec {
	t.Helper()
	out := map[string]unix.Timespec{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		var st unix.Stat_t
		err = unix.Lstat(path, &st)
		out[path] = st.Mtim
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func untar(t *testing.T, dir string, b []byte) {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(archive, b, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", dir, "-f", archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
}

// describe is tree.Describe.
func describe(t *testing.T, root string, untimed func(dir string) bool) map[string]string {
	t.Helper()
	out, err := tree.Describe(root, untimed)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func compare(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, d := range tree.Differences(got, want) {
		t.Error(d)
	}
}
