// SPDX-License-Identifier: Apache-2.0

package flat

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/zimage/erofs"
)

// holes is a file that does not write zeros, nor read those that it did not
// write.
type holes struct {
	*os.File
	at      int64
	written [][2]int64
}

func (h *holes) ReadAt(b []byte, off int64) (int, error) {
	for _, w := range h.written {
		if off < w[1] && off+int64(len(b)) > w[0] {
			return h.File.ReadAt(b, off)
		}
	}
	clear(b)
	return len(b), nil
}

var zeros [1 << 20]byte

func (h *holes) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		part := b[:min(len(b), len(zeros))]
		if !bytes.Equal(part, zeros[:len(part)]) {
			if _, err := h.WriteAt(part, h.at); err != nil {
				return 0, err
			}
			h.written = append(h.written, [2]int64{h.at, h.at + int64(len(part))})
		}
		h.at += int64(len(part))
		b = b[len(part):]
	}
	return n, nil
}

func sparseFile(t *testing.T) *holes {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) // a test's file
	return &holes{File: f}
}

// TestLargerThan4GiB: sizes, offsets and block numbers of more than 32 bits,
// from the tar header to what the kernel reads.
func TestLargerThan4GiB(t *testing.T) {
	const size = 4<<30 + 12345
	header := tar.Header{Name: "big", Typeflag: tar.TypeReg, Mode: 0o640, Size: size, Format: tar.FormatPAX}
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&header); err != nil {
		t.Fatal(err)
	}
	last := []byte("the last bytes")
	pad := make([]byte, 512-size%512)
	small := layer(t, h(reg, "small", ""))
	r := io.MultiReader(&head, io.LimitReader(zeroReader{}, size-int64(len(last))), bytes.NewReader(last), bytes.NewReader(pad), small)

	spool, disk := sparseFile(t), sparseFile(t)
	tree := New(spool, DefaultLimits())
	if err := tree.Layer(r); err != nil {
		t.Fatal(err)
	}
	l, err := erofs.Write(disk, tree.Root())
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.Truncate(l.Size); err != nil {
		t.Fatal(err)
	}
	if fsck, err := exec.LookPath("fsck.erofs"); err != nil {
		t.Log("SKIP fsck.erofs as a judge: it is not installed (package erofs-utils)")
	} else if out, err := exec.Command(fsck, disk.Name()).CombinedOutput(); err != nil || bytes.Contains(out, []byte("<E>")) {
		t.Errorf("fsck.erofs: %v: %s", err, out)
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIP TestLargerThan4GiB, its mount: it needs root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "erofs", "-o", "loop,ro", disk.Name(), dir).CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("unknown filesystem")) || bytes.Contains(out, []byte("loop device")) {
			t.Skipf("SKIP TestLargerThan4GiB, its mount: no EROFS or loop devices here: %s", out)
		}
		t.Fatalf("mount: %v: %s", err, out)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	f, err := os.Open(filepath.Join(dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, len(last)+1)
	n, err := f.ReadAt(got, size-int64(len(last)))
	if info, err := f.Stat(); err != nil || info.Size() != size {
		t.Errorf("size %v %v", info, err)
	}
	if !errors.Is(err, io.EOF) || !bytes.Equal(got[:n], last) {
		t.Errorf("ends with %q, %v", got[:n], err)
	}
	if info, err := os.Stat(filepath.Join(dir, "small")); err != nil || info.Size() != 0 {
		t.Errorf("what stands behind it: %v %v", info, err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// TestDirectoryOf100000 has the kernel find names in a directory of many
// blocks, and none that are not there.
func TestDirectoryOf100000(t *testing.T) {
	const many = 100_000
	root := &erofs.Node{Mode: erofs.TypeDir | 0o755, Children: map[string]*erofs.Node{}}
	for i := range many {
		root.Children[fmt.Sprintf("%x-%0*d", i*7919%many, i%40, i)] = &erofs.Node{Mode: erofs.TypeRegular | 0o644, UID: uint32(i)}
	}
	disk := sparseFile(t)
	l, err := erofs.Write(disk, root)
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.Truncate(l.Size); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIP TestDirectoryOf100000: mounting needs root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "erofs", "-o", "loop,ro", disk.Name(), dir).CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("unknown filesystem")) || bytes.Contains(out, []byte("loop device")) {
			t.Skipf("SKIP TestDirectoryOf100000: no EROFS or loop devices here: %s", out)
		}
		t.Fatalf("mount: %v: %s", err, out)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != many {
		t.Errorf("%d names, want %d: %v", len(list), many, err)
	}
	for name, n := range root.Children {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil || st.Uid != n.UID {
			t.Fatalf("%s: owner %d, want %d: %v", name, st.Uid, n.UID, err)
		}
		if err := unix.Lstat(filepath.Join(dir, name+"x"), &st); !errors.Is(err, unix.ENOENT) {
			t.Fatalf("%sx: %v", name, err)
		}
	}
}
