// SPDX-License-Identifier: Apache-2.0

package root

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/guest/wire"
)

// image makes a folder of: "d name", "f name", "l name target".
func image(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range [][]string{
		{"d", "etc"}, {"d", "run"}, {"d", "var"}, {"d", "usr/bin"}, {"f", "usr/bin/app"},
		{"l", "bin", "usr/bin"}, {"l", "var/run", "/run"}, {"l", "var/up", "../../../../../etc"},
		{"l", "etc/resolv.conf", "../run/none/resolv.conf"}, {"l", "loop", "loop"}, {"l", "out", "/../../../../tmp"},
		{"l", "chain", "bin/../var/run"},
	} {
		name := filepath.Join(dir, e[1])
		var err error
		switch e[0] {
		case "d":
			err = os.MkdirAll(name, 0o755)
		case "f":
			err = os.WriteFile(name, []byte("image"), 0o755)
		case "l":
			err = os.Symlink(e[2], name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "run"), 0o1777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestResolve(t *testing.T) {
	dir := image(t)
	for in, want := range map[string]string{
		"/": "/", "/etc/hosts": "/etc/hosts", "/bin/app": "/usr/bin/app", "/var/run/x/y": "/run/x/y", "/var/up/passwd": "/etc/passwd",
		"/new/folder": "/new/folder", "/out/x": "/tmp/x", "/chain/x": "/usr/var/run/x", "/usr/bin/app/x": "/usr/bin/app/x",
		"/etc/resolv.conf": "/run/none/resolv.conf",
	} {
		if got, err := Resolve(dir, in, true); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want)
		}
	}
	if got, err := Resolve(dir, "/etc/resolv.conf", false); err != nil || got != "/etc/resolv.conf" {
		t.Errorf("the last link was followed: %s, %v", got, err)
	}
	for _, bad := range []string{"", "etc", "/etc/", "/a/../b", "/loop/x"} {
		if got, err := Resolve(dir, bad, true); !errors.Is(err, ErrPath) {
			t.Errorf("%q gave %q, %v", bad, got, err)
		}
	}
}

func TestLayer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIP layer: sets owners, needs root")
	}
	l := Layer{Image: image(t), Dir: t.TempDir()}
	if err := l.Attributes(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []wire.File{
		{Path: "/etc/app/app.conf", Mode: 0o640, UID: 5, GID: 6, Content: []byte("conf")},
		{Path: "/etc/resolv.conf", Mode: 0o644, Content: []byte("none")},
		{Path: "/var/run/token", Mode: 0o400, UID: 7},
		{Path: "/bin/app", Mode: 0o4755, Content: []byte("mine")},
	} {
		if err := l.File(f); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]struct {
		mode fs.FileMode
		text string
	}{
		"etc/app/app.conf": {0o640, "conf"}, "etc/resolv.conf": {0o644, "none"}, "run/token": {0o400, ""},
		"usr/bin/app": {0o755 | fs.ModeSetuid, "mine"}, "run": {fs.ModeDir | 0o777 | fs.ModeSticky, "folder"}, "etc/app": {fs.ModeDir | 0o755, "folder"},
	} {
		info, err := os.Lstat(filepath.Join(l.Dir, name))
		if err != nil || info.Mode() != want.mode {
			t.Errorf("%s: %v, %v", name, info, err)
			continue
		}
		if b, err := os.ReadFile(filepath.Join(l.Dir, name)); want.text != "folder" && (err != nil || string(b) != want.text) {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for name, try := range map[string]func() error{
		"over a folder":      func() error { return l.File(wire.File{Path: "/var"}) },
		"in a file":          func() error { return l.File(wire.File{Path: "/usr/bin/app/x"}) },
		"the root":           func() error { return l.File(wire.File{Path: "/"}) },
		"folder over a file": func() error { _, err := l.Folder("/usr/bin/app"); return err },
		"folder over ours":   func() error { _, err := l.Folder("/etc/app/app.conf"); return err },
		"up and out":         func() error { return l.File(wire.File{Path: "/../x"}) },
	} {
		if err := try(); !errors.Is(err, ErrPath) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := l.File(wire.File{Path: "/etc/resolv.conf"}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the same file twice: %v", err)
	}
	if at, err := l.Folder("/var/run/data"); err != nil || at != "/run/data" {
		t.Errorf("%s, %v", at, err)
	}
}
