// SPDX-License-Identifier: Apache-2.0

package flat

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zos-node/zos/zimage/erofs"
)

func newTree(t testing.TB, limits Limits) *Tree {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return New(f, limits)
}

func h(kind byte, name, target string) tar.Header {
	return tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: 0o755}
}

func layer(t testing.TB, headers ...tar.Header) *bytes.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(b.Bytes())
}

const (
	reg  = tar.TypeReg
	dir  = tar.TypeDir
	sym  = tar.TypeSymlink
	hard = tar.TypeLink
)

func TestRefused(t *testing.T) {
	limits := Limits{Entries: 10, Bytes: 1000, Names: 5000}
	big := h(reg, "big", "")
	big.Size = 1001
	owner := h(reg, "owner", "")
	owner.Uid, owner.Format = 1<<32, tar.FormatPAX
	attr := h(reg, "attr", "")
	attr.PAXRecords = map[string]string{"SCHILY.xattr.user.a": strings.Repeat("v", 6000)}
	var many []tar.Header
	for i := range 11 {
		many = append(many, h(reg, fmt.Sprint(i), ""))
	}
	var nodes []tar.Header
	for i := range 10 {
		nodes = append(nodes, h(tar.TypeChar, fmt.Sprint(i), ""))
	}
	names := []tar.Header{nodes[0]}
	for i := range 9 {
		names = append(names, h(hard, fmt.Sprint("n", i), "0"))
	}
	for _, c := range []struct {
		name    string
		headers []tar.Header
		want    error
	}{
		{"up and out", []tar.Header{h(reg, "../etc/passwd", "")}, ErrLayer},
		{"up in the middle", []tar.Header{h(reg, "a/../b", "")}, ErrLayer},
		{"absolute, up", []tar.Header{h(reg, "/../b", "")}, ErrLayer},
		{"hard link up", []tar.Header{h(hard, "a", "../etc/passwd")}, ErrLayer},
		{"hard link to nothing", []tar.Header{h(hard, "a", "b")}, ErrLayer},
		{"hard link to a directory", []tar.Header{h(dir, "d", ""), h(hard, "a", "d")}, ErrLayer},
		{"hard link to where a device was", []tar.Header{h(tar.TypeChar, "a", ""), h(dir, "a", ""), h(hard, "b", "a")}, ErrLayer},
		{"hard link to a device whose folder is gone", []tar.Header{h(tar.TypeChar, "d/a", ""), h(reg, "d", ""), h(dir, "d", ""), h(hard, "b", "d/a")}, ErrLayer},
		{"hard link to the root", []tar.Header{h(hard, "a", "/")}, ErrLayer},
		{"hard link to itself", []tar.Header{h(hard, "a", "a")}, ErrLayer},
		{"whiteout of nothing", []tar.Header{h(reg, "a/.wh.", "")}, ErrLayer},
		{"whiteout of up", []tar.Header{h(reg, "a/.wh...", "")}, ErrLayer},
		{"the root is a file", []tar.Header{h(reg, ".", "")}, ErrLayer},
		{"below a file", []tar.Header{h(reg, "a", ""), h(reg, "a/b", "")}, ErrLayer},
		{"symlink loop on the way", []tar.Header{h(sym, "a", "b"), h(sym, "b", "a"), h(reg, "a/c", "")}, ErrLayer},
		{"part too long", []tar.Header{h(reg, strings.Repeat("n", 256), "")}, ErrLayer},
		{"symlink to a part too long", []tar.Header{h(sym, "a", strings.Repeat("n", 256)), h(reg, "a/b", "")}, ErrLayer},
		{"too deep", []tar.Header{h(reg, strings.Repeat("d/", 513)+"x", "")}, ErrLayer},
		{"symlink too long", []tar.Header{h(sym, "a", strings.Repeat("n", 4096))}, ErrLayer},
		{"owner too large", []tar.Header{owner}, ErrLayer},
		{"too many bytes", []tar.Header{big}, ErrLimit},
		{"too many entries", many, ErrLimit},
		{"too many device nodes", nodes, ErrLimit},
		{"too many names of a device node", names, ErrLimit},
		{"too many directories on the way", []tar.Header{h(reg, strings.Repeat("d/", 11)+"x", "")}, ErrLimit},
		{"too large attributes", []tar.Header{attr}, ErrLimit},
		{"too long names", []tar.Header{h(sym, "a", strings.Repeat("t", 3000)), h(sym, "b", strings.Repeat("t", 3000))}, ErrLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := newTree(t, limits).Layer(layer(t, c.headers...)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			b := layer(t, c.headers...)
			if err := newTree(t, limits).LayerIn(b, b.Size()); !errors.Is(err, c.want) {
				t.Errorf("in a file: got %v, want %v", err, c.want)
			}
		})
	}
	cut := layer(t, big)
	for _, at := range []int64{700, 1512} { // in its content, and before its last byte
		if err := newTree(t, DefaultLimits()).LayerIn(cut, at); !errors.Is(err, ErrLayer) {
			t.Errorf("cut off at %d, in a file: %v", at, err)
		}
		if err := newTree(t, DefaultLimits()).Layer(io.NewSectionReader(cut, 0, at)); !errors.Is(err, ErrLayer) {
			t.Errorf("cut off at %d: %v", at, err)
		}
	}
}

// TestSymlinksStayInside: what a symlink would reach outside, on a host, it
// reaches inside.
func TestSymlinksStayInside(t *testing.T) {
	tree := newTree(t, DefaultLimits())
	for _, l := range []*bytes.Reader{
		layer(t, h(dir, "usr", ""), h(sym, "root", "/"), h(sym, "out", "../../../usr"), h(sym, "far", "/new/place"), h(sym, "a/b", "../far")),
		layer(t, h(reg, "root/x", ""), h(reg, "out/y", ""), h(reg, "far/z", ""), h(reg, "a/b/w", ""), h(hard, "v", "out/y"), h(hard, "s", "out")),
	} {
		if err := tree.Layer(l); err != nil {
			t.Fatal(err)
		}
	}
	for name, kind := range map[string]uint32{
		"/x": erofs.TypeRegular, "/usr/y": erofs.TypeRegular, "/new/place/z": erofs.TypeRegular, "/new/place/w": erofs.TypeRegular,
		"/root/root/out/../usr/y": erofs.TypeRegular, "/out": erofs.TypeDir, "a/b/.": erofs.TypeDir, "/usr/..": erofs.TypeDir, "": erofs.TypeDir,
	} {
		if n := tree.Lookup(name); n == nil || n.Mode&erofs.TypeMask != kind {
			t.Errorf("%q is %+v", name, n)
		}
	}
	if tree.Root().Children["v"] != tree.Lookup("/usr/y") || tree.Root().Children["s"] != tree.Root().Children["out"] {
		t.Error("a hard link is another inode")
	}
	for _, name := range []string{"/none", "/x/y", "/none/x"} {
		if n := tree.Lookup(name); n != nil {
			t.Errorf("%q is %+v", name, n)
		}
	}
}

// TestInsecureNames: Go's reader of tars has a switch, which may be another one in
// the next Go, to fail at names that lead out of a folder. Here there is none to lead
// out of: what is refused is refused without it, and nothing else.
func TestInsecureNames(t *testing.T) {
	for _, debug := range []string{"", "tarinsecurepath=0", "tarinsecurepath=1"} {
		t.Run(debug, func(t *testing.T) {
			t.Setenv("GODEBUG", debug)
			for name, good := range map[string]bool{"/etc/x": true, "//etc/y": true, "./z": true, "../x": false, "/../x": false, "a/../../x": false} {
				tree := newTree(t, DefaultLimits())
				err := tree.Layer(layer(t, h(reg, name, ""), h(reg, "behind", "")))
				if good && (err != nil || len(tree.Root().Children) != 2) || !good && !errors.Is(err, ErrLayer) {
					t.Errorf("%s: %v, and the image has %d names", name, err, len(tree.Root().Children))
				}
			}
		})
	}
}

// FuzzLayer: whatever is in a tar, what comes out is a tree that can be
// written, twice the same, within the limits; and the same from a file.
func FuzzLayer(f *testing.F) {
	read := func(headers ...tar.Header) []byte {
		b, err := io.ReadAll(layer(f, headers...))
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	attr := h(reg, "x", "")
	attr.PAXRecords = map[string]string{"SCHILY.xattr.user.a": "v", "SCHILY.xattr.security.capability": "c"}
	file := h(reg, "d/f", "")
	file.Size = 5000
	base := read(h(dir, "d", ""), file, h(sym, "l", "d"), h(hard, "l/g", "d/f"), attr)
	f.Add(base, read(h(reg, "d/.wh..wh..opq", ""), h(reg, "l/.wh.g", ""), h(dir, "l", "")))
	f.Add(base, read(h(reg, ".wh.d", ""), h(reg, "d", ""), h(tar.TypeFifo, "d", "")))
	f.Add(base, []byte("no tar"))
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		limits := Limits{Entries: 500, Bytes: 1 << 20, Names: 1 << 16}
		tree, placed := newTree(t, limits), newTree(t, limits)
		for _, b := range [][]byte{lower, upper} {
			err, other := tree.Layer(bytes.NewReader(b)), placed.LayerIn(bytes.NewReader(b), int64(len(b)))
			if (err == nil) != (other == nil) {
				t.Errorf("as a stream: %v, in a file: %v", err, other)
			}
			if err != nil {
				if !errors.Is(err, ErrLayer) && !errors.Is(err, ErrLimit) {
					t.Errorf("error of another kind: %v", err)
				}
				return
			}
		}
		var first, second bytes.Buffer
		_, err := erofs.Write(&first, tree.Root())
		if err != nil {
			if !errors.Is(err, erofs.ErrTree) {
				t.Error(err)
			}
			return
		}
		if _, err := erofs.Write(&second, tree.Root()); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("written again it is another image: %v", err)
		}
		second.Reset()
		if _, err := erofs.Write(&second, placed.Root()); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("from a file it is another image: %v", err)
		}
	})
}
