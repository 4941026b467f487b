// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/uimage/initramfs"
)

// ErrPath says that a path cannot stand in an initramfs.
var ErrPath = errors.New("bad path in initramfs")

// Tree collects the files of an initramfs. Missing parent folders are added.
// mkuimage sorts the records and strips times, owners and inode numbers.
type Tree struct {
	files  *initramfs.Files
	err    error
	origin Origin
	parts  []Part // files, with their origins
}

// From says where the files come from that are added next.
func (t *Tree) From(o Origin) { t.origin = o }

// NewTree starts with the folder and the two devices that exist before
// devtmpfs is mounted: the kernel opens /dev/console for PID 1.
func NewTree() *Tree {
	t := &Tree{files: initramfs.NewFiles()}
	t.Dir("dev", 0o755)
	t.add(cpio.CharDev("dev/console", 0o600, 5, 1))
	t.add(cpio.CharDev("dev/null", 0o666, 1, 3))
	return t
}

func (t *Tree) add(r cpio.Record) {
	if t.err != nil {
		return
	}
	clean := path.Clean("/" + r.Name)[1:]
	if clean == "" || clean != strings.TrimPrefix(r.Name, "/") {
		t.err = fmt.Errorf("%w: %q", ErrPath, r.Name)
		return
	}
	r.Name = clean
	for dir := path.Dir(clean); dir != "."; dir = path.Dir(dir) {
		if !t.files.Contains(dir) {
			t.err = errors.Join(t.err, t.files.AddRecord(cpio.Directory(dir, 0o755)))
		}
	}
	if t.files.Contains(clean) {
		// A folder that was implied by a file may be named afterwards; a file twice is a mistake.
		if old := t.files.Records[clean]; old.Mode&cpio.S_IFMT == cpio.S_IFDIR && r.Mode&cpio.S_IFMT == cpio.S_IFDIR {
			t.files.Records[clean] = r
			return
		}
		t.err = fmt.Errorf("%w: %q stands twice", ErrPath, clean)
		return
	}
	t.err = errors.Join(t.err, t.files.AddRecord(r))
}

// Dir adds a folder.
func (t *Tree) Dir(name string, mode uint64) { t.add(cpio.Directory(name, mode)) }

// File adds a file.
func (t *Tree) File(name string, mode uint64, content []byte) {
	t.add(cpio.StaticRecord(content, cpio.Info{Name: name, Mode: cpio.S_IFREG | mode}))
	t.parts = append(t.parts, part("/"+name, content, t.origin))
}

// Archive adds an archive, whose files are parts and which is none itself.
func (t *Tree) Archive(name string, content []byte, parts []Part) {
	t.add(cpio.StaticRecord(content, cpio.Info{Name: name, Mode: cpio.S_IFREG | 0o644}))
	t.parts = append(t.parts, parts...)
}

// Symlink adds a symbolic link.
func (t *Tree) Symlink(name, target string) { t.add(cpio.Symlink(name, target)) }

// Has says that a path was added.
func (t *Tree) Has(name string) bool { return t.files.Contains(strings.TrimPrefix(name, "/")) }

// stream lets mkuimage write to any writer.
type stream struct{ w io.Writer }

func (s stream) OpenWriter() (initramfs.Writer, error) {
	return finisher{cpio.Newc.Writer(s.w)}, nil
}

type finisher struct{ cpio.RecordWriter }

func (f finisher) Finish() error { return cpio.WriteTrailer(f) }

// CPIO is the uncompressed archive.
func (t *Tree) CPIO() ([]byte, error) {
	if t.err != nil {
		return nil, t.err
	}
	for name, r := range t.files.Records {
		t.files.Records[name] = cpio.MakeReproducible(r)
	}
	var b bytes.Buffer
	if err := initramfs.Write(&initramfs.Opts{Files: t.files, OutputFile: stream{&b}}); err != nil {
		return nil, fmt.Errorf("write cpio: %w", err)
	}
	return b.Bytes(), nil
}

// Appended adds the files of more to a finished initramfs, compressed or not:
// the kernel unpacks concatenated archives one after the other, later files
// replacing earlier ones. An archive must start at a multiple of four.
func Appended(base []byte, more *Tree) ([]byte, error) {
	add, err := more.CPIO()
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(base)+3+len(add))
	out = append(out, base...)
	for len(out)%4 != 0 {
		out = append(out, 0)
	}
	return append(out, add...), nil
}

// Patch is an empty tree for Appended: no devices, only what is added.
func Patch() *Tree { return &Tree{files: initramfs.NewFiles()} }
