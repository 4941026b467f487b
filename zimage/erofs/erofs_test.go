// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func dirOf(children map[string]*Node) *Node {
	return &Node{Mode: TypeDir | 0o755, Children: children}
}

// file is a regular file of equal bytes.
func file(n int, fill byte) *Node {
	return &Node{Mode: TypeRegular, Data: bytes.NewReader(bytes.Repeat([]byte{fill}, n)), Size: int64(n)}
}

func write(t *testing.T, root *Node) ([]byte, Layout) {
	t.Helper()
	var b bytes.Buffer
	l, err := Write(&b, root)
	if err != nil {
		t.Fatal(err)
	}
	if int64(b.Len()) != l.Size || l.Size%BlockSize != 0 {
		t.Fatalf("%d bytes written, layout says %d", b.Len(), l.Size)
	}
	return b.Bytes(), l
}

func attrs(t *testing.T, of map[string]string) string {
	t.Helper()
	s, err := EncodeXattrs(of)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestXattrs(t *testing.T) {
	acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff"
	for name, of := range map[string]map[string]string{
		"elsewhere":        {"system.x": ""},
		"no name":          {"user.": ""},
		"long name":        {"user." + strings.Repeat("n", 256): ""},
		"too large":        {"user.a": strings.Repeat("v", 65536)},
		"all too large":    {"user.a": strings.Repeat("v", 40000), "user.b": strings.Repeat("v", 40000)},
		"more than an ACL": {"system.posix_acl_access.x": acl},
		"ACL, empty":       {"system.posix_acl_access": ""},
		"ACL, version 1":   {"system.posix_acl_access": "\x01" + acl[1:]},
		"ACL, cut":         {"system.posix_acl_default": acl[:11]},
		"ACL, tag":         {"system.posix_acl_default": acl[:4] + "\x03" + acl[5:]},
	} {
		if s, err := EncodeXattrs(of); !errors.Is(err, ErrTree) || s != "" {
			t.Errorf("%s: %q, %v", name, s, err)
		}
	}
	got := attrs(t, map[string]string{"system.posix_acl_access": acl, "system.posix_acl_default": acl[:4], "trusted.t": "1"})
	want := strings.Repeat("\x00", 12) + "\x00\x02\x0c\x00" + acl + "\x00\x03\x04\x00" + acl[:4] + "\x01\x04\x01\x00t1\x00\x00"
	if got != want {
		t.Errorf("encoded as\n%q, want\n%q", got, want)
	}
}

func TestRefused(t *testing.T) {
	twice := dirOf(nil)
	loop := dirOf(map[string]*Node{})
	loop.Children["a"] = loop
	deep := dirOf(nil)
	for range maxDepth + 1 {
		deep = dirOf(map[string]*Node{"d": deep})
	}
	for name, n := range map[string]*Node{
		"no root":             nil,
		"root is a file":      {Mode: TypeRegular},
		"directory twice":     dirOf(map[string]*Node{"a": twice, "b": twice}),
		"directory in itself": loop,
		"too deep":            deep,
		"empty name":          dirOf(map[string]*Node{"": {Mode: TypeRegular}}),
		"dot":                 dirOf(map[string]*Node{".": {Mode: TypeRegular}}),
		"dot dot":             dirOf(map[string]*Node{"..": {Mode: TypeRegular}}),
		"slash":               dirOf(map[string]*Node{"a/b": {Mode: TypeRegular}}),
		"NUL":                 dirOf(map[string]*Node{"a\x00": {Mode: TypeRegular}}),
		"long name":           dirOf(map[string]*Node{strings.Repeat("n", 256): {Mode: TypeRegular}}),
		"device":              dirOf(map[string]*Node{"a": {Mode: 0o020000}}),
		"no type":             dirOf(map[string]*Node{"a": {Mode: 0o644}}),
		"mode bits":           dirOf(map[string]*Node{"a": {Mode: 1<<16 | TypeRegular}}),
		"symlink to nothing":  dirOf(map[string]*Node{"a": {Mode: TypeSymlink}}),
		"long symlink":        dirOf(map[string]*Node{"a": {Mode: TypeSymlink, Target: strings.Repeat("t", 4096)}}),
		"time":                dirOf(map[string]*Node{"a": {Mode: TypeRegular, Nanos: 1e9}}),
		"attributes cut":      dirOf(map[string]*Node{"a": {Mode: TypeRegular, Xattrs: "1234"}}),
		"attributes odd":      dirOf(map[string]*Node{"a": {Mode: TypeRegular, Xattrs: strings.Repeat("x", 13)}}),
		"file without bytes":  dirOf(map[string]*Node{"a": {Mode: TypeRegular, Size: 1}}),
		"negative size":       dirOf(map[string]*Node{"a": {Mode: TypeRegular, Size: -1}}),
		"file with children":  dirOf(map[string]*Node{"a": {Mode: TypeRegular, Children: map[string]*Node{}}}),
	} {
		if _, err := Write(io.Discard, n); !errors.Is(err, ErrTree) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type full struct{ left int }

var errFull = errors.New("full")

func (f *full) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestFailures(t *testing.T) {
	root := dirOf(map[string]*Node{"a": file(5<<20, 1)})
	if _, err := Write(&full{left: 3 << 20}, root); !errors.Is(err, errFull) {
		t.Errorf("full disk: %v", err)
	}
	// The spool is shorter than the file was.
	root.Children["a"].Data, root.Children["a"].Size = bytes.NewReader(make([]byte, 100)), 200000
	if _, err := Write(io.Discard, root); !errors.Is(err, errShort) {
		t.Errorf("short file: %v", err)
	}
}

// TestOrderDoesNotMatter: a tree is its names, not how it came about.
func TestOrderDoesNotMatter(t *testing.T) {
	var first []byte
	for range 5 {
		root := dirOf(map[string]*Node{})
		for i := range 300 {
			n := file(i*7, byte(i))
			n.Xattrs = attrs(t, map[string]string{"user.b": "1", "user.a": "2", "user.c": ""})
			root.Children[fmt.Sprint(i)] = n
		}
		b, _ := write(t, root)
		if first == nil {
			first = b
		}
		if !bytes.Equal(first, b) {
			t.Fatal("another image")
		}
	}
}

// TestLayout holds what cutting relies on.
func TestLayout(t *testing.T) {
	_, l := write(t, dirOf(map[string]*Node{
		"inline": file(100, 1),
		"tail":   file(BlockSize+100, 2),
		"large":  file(InlineBelow+100, 3),
		"empty":  {Mode: TypeRegular},
	}))
	want := Layout{Size: 2*BlockSize + 17*BlockSize + BlockSize, Meta: 2 * BlockSize,
		Files: []Extent{{2 * BlockSize, InlineBelow + 100}, {19 * BlockSize, BlockSize}}}
	if fmt.Sprint(l) == fmt.Sprint(want) {
		return
	}
	// One block more of metadata is needed where a tail does not fit.
	want.Size, want.Meta = want.Size+BlockSize, want.Meta+BlockSize
	for i := range want.Files {
		want.Files[i].Off += BlockSize
	}
	if fmt.Sprint(l) != fmt.Sprint(want) {
		t.Errorf("layout %+v, want %+v", l, want)
	}
}

// TestManyInodes needs inode numbers, and directories, of more than one byte
// in every place; fsck.erofs reads all of them.
func TestManyInodes(t *testing.T) {
	fsck, err := exec.LookPath("fsck.erofs")
	if err != nil {
		t.Skip("SKIP TestManyInodes: no fsck.erofs (package erofs-utils)")
	}
	root := dirOf(map[string]*Node{})
	shared := file(9, 1)
	for i := range 300 {
		d := dirOf(map[string]*Node{"shared": shared})
		for j := range 100 {
			n := file(j*50, byte(j))
			n.UID = uint32(j)
			d.Children[fmt.Sprintf("%0*d", 1+j*2, j)] = n
		}
		root.Children[fmt.Sprint(i)] = d
	}
	b, _ := write(t, root)
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := judge(fsck, name); err != nil {
		t.Errorf("fsck.erofs: %v: %s", err, out)
	}
	// The judge does look.
	b[superOffset+4] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := judge(fsck, name); err == nil {
		t.Errorf("fsck.erofs accepts a wrong checksum: %s", out)
	}
}

// judge runs fsck.erofs, which tells of some faults in words only.
func judge(fsck, image string) (string, error) {
	out, err := exec.Command(fsck, "--extract", image).CombinedOutput()
	if err == nil && bytes.Contains(out, []byte("<E>")) {
		err = errors.New("it found errors")
	}
	return string(out), err
}
