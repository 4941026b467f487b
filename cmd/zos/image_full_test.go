// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestImageOnAFullDisk: a disk of this machine that is full says nothing of the
// image, which scripts would take for a wrong one.
func TestImageOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP TestImageOnAFullDisk: mounting needs root")
	}
	small := t.TempDir()
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("SKIP TestImageOnAFullDisk: mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	packed := func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil } // goes through a temporary file
	ref := layerLayout(t, packed, func(w *tar.Writer) error {
		return entry(w, &tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644}, strings.Repeat("f", 3<<20))
	})
	store := filepath.Join(t.TempDir(), "store")
	code, out, errs := imageRun(t, "image", "convert", ref, "--store", store, "--json")
	var r converted
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil {
		t.Fatalf("convert: %d %s %s %v", code, out, errs, err)
	}
	t.Setenv("TMPDIR", small)
	for _, args := range [][]string{{"verify", r.ID, "--store", store, "--oci", ref}, {"convert", ref, "--store", filepath.Join(small, "store")}} {
		code, out, errs := imageRun(t, append([]string{"image"}, args...)...)
		if code != exitFailed || !strings.Contains(errs, "no space left on device") || strings.Contains(errs, "refused") {
			t.Errorf("zos image %s: exit %d, want %d\n%s%s", args[0], code, exitFailed, out, errs)
		}
	}
}
