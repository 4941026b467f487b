// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger/tiles"
)

// smallTar has the members of a backup, each with a byte, and those in more.
func smallTar(t testing.TB, more ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range append(slices.Clone(members), "log/snapshot", "log/consensus", "log/root/1.json", "log/tile/0/000.p/1", "log/checkpoint") {
		more = append(more, tar.Header{Name: name, Mode: 0o644, Size: 1})
	}
	for _, h := range more {
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
	return b.Bytes()
}

// sparse is a backup one member of which says in a few bytes that it is huge.
func sparse(t testing.TB) []byte {
	t.Helper()
	// What GNU tar writes as format 1.0: the map is in the data.
	data := "1\n67108864\n0\n" + strings.Repeat("\x00", 512)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := tar.Header{Name: "root.json", Mode: 0o644, Size: int64(len(data)), Format: tar.FormatPAX, PAXRecords: map[string]string{
		"ZOS.sparse.major": "1", "ZOS.sparse.minor": "0", "ZOS.sparse.name": "root.json", "ZOS.sparse.realsize": "67108864"}}
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// A writer refuses to make one.
	return bytes.ReplaceAll(b.Bytes(), []byte("ZOS.sparse"), []byte("GNU.sparse"))
}

// TestBackupIsNoBomb: no member of a backup becomes more than the file has.
func TestBackupIsNoBomb(t *testing.T) {
	if _, err := unpack(bytes.NewReader(smallTar(t)), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if done, err := unpack(bytes.NewReader(sparse(t)), t.TempDir()); err == nil || !strings.Contains(err.Error(), "sparse") || done.Files > 0 {
		t.Errorf("%+v, %v", done, err)
	}
}

// FuzzBackup: whatever a backup has, unpacked it stays below its folder, has only
// files that a ledger has, each once, and no more bytes than it had itself; and
// one that is taken has all that a ledger needs.
func FuzzBackup(f *testing.F) {
	good := smallTar(f)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(good[:len(good)/512/2*512])
	f.Add(smallTar(f, tar.Header{Name: "../root.json", Size: 1}))
	f.Add(smallTar(f, tar.Header{Name: "log/../../x", Size: 1}))
	f.Add(smallTar(f, tar.Header{Name: "root.json", Size: 1}))
	f.Add(smallTar(f, tar.Header{Name: "log", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}))
	f.Add(smallTar(f, tar.Header{Name: "log/tile/entries/x001/000", Size: 9}))
	f.Add(sparse(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		above := t.TempDir()
		dir := filepath.Join(above, "a", "b")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		done, err := unpack(bytes.NewReader(b), dir)
		files, size := 0, int64(0)
		walked := filepath.WalkDir(above, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			name = filepath.ToSlash(name)
			log, inLog := strings.CutPrefix(name, "log/")
			if !d.Type().IsRegular() || !inLog && !slices.Contains(members, name) || inLog && !tiles.ValidPath(log) {
				t.Errorf("it left %q, a %s", name, d.Type())
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			files, size = files+1, size+info.Size()
			return nil
		})
		if walked != nil {
			t.Fatal(walked)
		}
		if size > int64(len(b)) {
			t.Errorf("%d bytes became %d", len(b), size)
		}
		if err != nil {
			return
		}
		if files != done.Files || size != done.Bytes {
			t.Errorf("it says %+v; there are %d files of %d bytes", done, files, size)
		}
		for _, name := range append(slices.Clone(members), "log/snapshot", "log/consensus", "log/checkpoint") {
			if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name))); err != nil && name != "mesh.json" {
				t.Errorf("it was taken without %s", name)
			}
		}
	})
}
