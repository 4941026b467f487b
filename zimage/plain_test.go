// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/zimage/flat"
)

// onDisk is an image whose blobs lie in files.
type onDisk struct {
	*memory
	read    int64
	changed error
	open    int
	fail    func() error // of a read; may be nil
}

func (d *onDisk) File(digest string) (File, error) {
	d.open++
	return &diskFile{bytes.NewReader(d.blobs[digest]), d}, nil
}

type diskFile struct {
	*bytes.Reader
	of *onDisk
}

func (f *diskFile) ReadAt(b []byte, off int64) (int, error) {
	if f.of.fail != nil {
		if err := f.of.fail(); err != nil {
			return 0, err
		}
	}
	n, err := f.Reader.ReadAt(b, off)
	f.of.read += int64(n)
	return n, err
}

func (f *diskFile) Unchanged() error { return f.of.changed }
func (f *diskFile) Close() error     { f.of.open--; return nil }

// TestPlainLayerStaysInItsFile: what is plain and lies in a file is read there
// twice, to hash it and to write it, and nowhere else in between; the image is the
// same. A file that was written to meanwhile is refused, and so is a wrong one.
func TestPlainLayerStaysInItsFile(t *testing.T) {
	const size = 4 << 20
	// The third layer is a plain one, the others are not.
	image := func() *memory {
		return ociImage(t, []item{file("a", noise(1000, 1))}, []item{file("d", noise(5000, 4))}, []item{file("big", noise(size, 2)), file("c", noise(70<<10, 3))})
	}
	want, id, err := Convert(t.Context(), image(), "linux/amd64", openTestStore(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &onDisk{memory: image()}
	got, again, err := Convert(t.Context(), d, "linux/amd64", openTestStore(t), nil)
	if err != nil || id != again || got.Verity.Root != want.Verity.Root {
		t.Fatalf("id %s, root %s; want %s, %s: %v", again, got.Verity.Root, id, want.Verity.Root, err)
	}
	if d.read < 2*size || d.open != 0 {
		t.Errorf("%d bytes were read in the file, want at least %d; %d files are open", d.read, 2*size, d.open)
	}
	if _, err := MapImage(t.Context(), d, got, t.TempDir(), nil); err != nil || d.open != 0 {
		t.Errorf("map: %v, %d files are open", err, d.open)
	}

	dir := t.TempDir()
	store, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	d.changed = fmt.Errorf("%w: written to", ErrMismatch)
	if _, _, err := Convert(t.Context(), d, "linux/amd64", store, nil); !errors.Is(err, ErrMismatch) || d.open != 0 {
		t.Errorf("a file that changed: %v, %d files are open", err, d.open)
	}
	if list, err := os.ReadDir(filepath.Join(dir, "manifests")); err != nil || len(list) != 0 {
		t.Errorf("it left manifests: %v %v", list, err)
	}

	d = &onDisk{memory: image()}
	for digest, b := range d.blobs {
		if len(b) > size {
			b = bytes.Clone(b)
			b[size/2] ^= 1
			d.blobs[digest] = b
		}
	}
	if _, _, err := Convert(t.Context(), d, "linux/amd64", store, nil); !errors.Is(err, ErrMismatch) || d.open != 0 {
		t.Errorf("an altered layer: %v, %d files are open", err, d.open)
	}
}

// TestFailingDiskIsNoOtherImage: a read that fails once, whichever it is, ends the
// conversion, and says what failed. Who looks for packages goes on at a file that
// cannot be read, and the document would be another one.
func TestFailingDiskIsNoOtherImage(t *testing.T) {
	errDisk := errors.New("the disk fails")
	reads, bad := 0, 0
	d := &onDisk{memory: ociImage(t, []item{file("x", nil)}, []item{file("y", nil)}, []item{ // the third layer is a plain one
		file("a", noise(700<<10, 1)),
		file("var/lib/dpkg/status", []byte("Package: libc6\nStatus: install ok installed\nVersion: 2.36\nArchitecture: amd64\n\n")),
	})}
	d.fail = func() error {
		if reads++; reads == bad {
			return errDisk
		}
		return nil
	}
	if _, _, err := Convert(t.Context(), d, "linux/amd64", openTestStore(t), nil); err != nil {
		t.Fatal(err)
	}
	all := reads
	if all < 5 {
		t.Fatalf("it reads %d times", all)
	}
	for bad = 1; bad <= all; bad++ {
		reads = 0
		_, _, err := Convert(t.Context(), d, "linux/amd64", openTestStore(t), nil)
		if !errors.Is(err, errDisk) || errors.Is(err, ErrSource) || errors.Is(err, flat.ErrLayer) {
			t.Errorf("read %d of %d failed: %v", bad, all, err)
		}
	}
}
