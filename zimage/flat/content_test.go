// SPDX-License-Identifier: Apache-2.0

package flat

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
)

// errDisk is of a disk that is full, or fails.
var errDisk = errors.New("the disk fails")

// badDisk takes so many bytes, and gives none from an offset on.
type badDisk struct {
	*os.File
	room, good int64
}

func (d *badDisk) Write(b []byte) (int, error) {
	if d.room -= int64(len(b)); d.room < 0 {
		return 0, errDisk
	}
	return d.File.Write(b)
}

func (d *badDisk) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > d.good {
		return 0, errDisk
	}
	return d.File.ReadAt(b, off)
}

// TestDiskFails: what fails on this machine is not the layer's fault, wherever it
// fails; the tool would say that the image is refused.
func TestDiskFails(t *testing.T) {
	const size = 3 << 20 // more than waits in memory
	file := h(reg, "f", "")
	file.Size = size
	disk := func(room, good int64) *badDisk {
		f, err := os.Create(t.TempDir() + "/disk")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() }) // a test's file
		return &badDisk{f, room, good}
	}
	holding := func(d *badDisk, b []byte) (io.ReaderAt, int64) {
		if _, err := d.File.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		return d, int64(len(b))
	}
	two := append(raw(t, file)[:512+size], raw(t, file)...)
	for _, c := range []struct {
		name string
		add  func() error
	}{
		{"no room for a file", func() error { return New(disk(size/2, size), DefaultLimits()).Layer(bytes.NewReader(raw(t, file))) }},
		{"no room for the end of a file", func() error { return New(disk(size-1, size), DefaultLimits()).Layer(bytes.NewReader(raw(t, file))) }},
		{"no room for a file between others", func() error { return New(disk(size+size/2, size), DefaultLimits()).Layer(bytes.NewReader(two)) }},
		{"no room for a sparse file", func() error {
			return New(disk(0, size), DefaultLimits()).LayerIn(holding(disk(size, 1<<30), oldSparse(t, size)))
		}},
		{"a header of a file cannot be read", func() error {
			return New(disk(0, 0), DefaultLimits()).LayerIn(holding(disk(0, size), two))
		}},
		{"a sparse file cannot be read", func() error {
			return New(disk(size, size), DefaultLimits()).LayerIn(holding(disk(0, 10_000), oldSparse(t, size)))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.add(); !errors.Is(err, errDisk) || errors.Is(err, ErrLayer) {
				t.Errorf("got %v, want an error of the disk", err)
			}
		})
	}
}

// TestErr: what cannot be read back is known later, and the end of a file is no
// failure.
func TestErr(t *testing.T) {
	file := h(reg, "f", "")
	file.Size = 100_000
	b := raw(t, file)
	spool, from := newTree(t, DefaultLimits()).spool.(*os.File), newTree(t, DefaultLimits()).spool.(*os.File)
	if _, err := from.Write(b); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]*badDisk{"spool": {spool, 1 << 30, 0}, "layer in a file": {from, 0, 0}} {
		t.Run(name, func(t *testing.T) {
			bad.good = 1 << 30
			tree, err := New(bad, DefaultLimits()), error(nil)
			if name == "spool" {
				err = tree.Layer(bytes.NewReader(b))
			} else {
				err = tree.LayerIn(bad, int64(len(b)))
			}
			if err != nil {
				t.Fatal(err)
			}
			f := tree.Lookup("f")
			for _, n := range []int{100, 70_000} { // through the window, and beside it
				bad.good = 1 << 30
				got, err := f.Data.ReadAt(make([]byte, n), f.Off+f.Size-100)
				if got < 100 || tree.Err() != nil {
					t.Errorf("at the end: %d bytes, %v; %v", got, err, tree.Err())
				}
				bad.good = 0
				if _, err := f.Data.ReadAt(make([]byte, n), f.Off); !errors.Is(err, errDisk) || !errors.Is(tree.Err(), errDisk) {
					t.Errorf("%d bytes: %v, known as %v", n, err, tree.Err())
				}
				f.Data.(*window).failed = nil
			}
		})
	}
}

func raw(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	b, err := io.ReadAll(layer(t, headers...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// oldSparse is a layer with one file in GNU's old sparse form, without a hole.
func oldSparse(t *testing.T, size int64) []byte {
	t.Helper()
	file := h(reg, "f", "")
	file.Size, file.Format = size, tar.FormatGNU
	b := raw(t, file)
	b[156] = tar.TypeGNUSparse
	copy(b[386:], fmt.Sprintf("%011o\x00%011o\x00", 0, size))
	copy(b[483:], fmt.Sprintf("%011o\x00", size))
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}
