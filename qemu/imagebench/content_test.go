// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"
)

// TestUntimedDirs: only directories whose time nobody has said are not compared.
func TestUntimedDirs(t *testing.T) {
	name := filepath.Join(t.TempDir(), "tar")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for _, h := range []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir}, {Name: "usr/", Typeflag: tar.TypeDir}, {Name: "usr/bin/", Typeflag: tar.TypeDir}, {Name: "usr/bin/a", Typeflag: tar.TypeReg},
		{Name: "usr/share/deep/doc/a", Typeflag: tar.TypeReg}, {Name: "etc/", Typeflag: tar.TypeDir}, {Name: "etc/passwd", Typeflag: tar.TypeReg},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	untimed, err := untimedDirs(name)
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{"/": false, "/usr": true, "/usr/bin": false, "/usr/share": true, "/usr/share/deep": true, "/usr/share/deep/doc": true, "/etc": false} {
		if untimed(dir) != want {
			t.Errorf("%s: %v", dir, untimed(dir))
		}
	}
}
