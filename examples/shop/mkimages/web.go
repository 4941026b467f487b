// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/zos-node/zos/kernel/debian"
)

// left is what stays out of the image: it serves people, package managers and
// service managers, of which there are none.
var left = []string{
	"/etc/cron.d", "/etc/default", "/etc/init.d", "/etc/ld.so.conf.d", "/etc/logrotate.d", "/etc/ufw", "/usr/bin",
	"/usr/lib/systemd", "/usr/share/bug", "/usr/share/initramfs-tools", "/usr/share/lintian", "/usr/share/locale", "/usr/share/man",
	"/usr/share/vim", "/usr/share/apport", "/usr/share/gcc", "/usr/share/gdb", "/usr/share/nginx/modules-available",
}

// merged are directories that are symlinks into /usr.
var merged = []string{"bin", "lib", "lib64", "sbin"}

const (
	maxFile = 64 << 20
	wwwData = 33 // Debian's fixed number of the user and group www-data
)

func webImage(ctx context.Context, debs []deb, arch string) (v1.Image, error) {
	t, err := webTree(ctx, debs)
	if err != nil {
		return nil, err
	}
	return image(t, arch, v1.Config{
		Entrypoint: []string{"/usr/sbin/nginx", "-e", "stderr", "-g", "daemon off;"},
		Env:        []string{"PATH=/usr/sbin:/usr/bin"}, WorkingDir: "/", StopSignal: "SIGQUIT",
	})
}

// webTree unpacks the packages and adds what their scripts would have made.
func webTree(ctx context.Context, debs []deb) (tree, error) {
	t := tree{}
	for _, d := range debs {
		if err := debian.Walk(ctx, d.path, t.unpack); err != nil {
			return nil, fmt.Errorf("package %s: %w", d.Name, err)
		}
	}
	for _, d := range merged {
		t.symlink("/"+d, "usr/"+d)
	}
	for _, d := range []string{"/dev", "/proc", "/sys", "/run", "/usr/lib64", "/usr/bin"} {
		t.dir(d, 0o755, 0, 0)
	}
	t.dir("/tmp", 0o1777, 0, 0)
	t.symlink("/var/run", "/run")
	for _, d := range []string{"/var/lib/nginx", "/var/log/nginx"} {
		t.dir(d, 0o755, wwwData, wwwData)
	}
	t.file("/etc/passwd", 0o644, []byte("root:x:0:0:root:/:/none\nwww-data:x:33:33:www-data:/var/www:/none\n"))
	t.file("/etc/group", 0o644, []byte("root:x:0:\nwww-data:x:33:\n"))
	t.file("/etc/nsswitch.conf", 0o644, []byte("passwd: files\ngroup: files\nhosts: files dns\n"))
	return t, t.check()
}

// unpack takes one entry of a package.
func (t tree) unpack(name string, h *tar.Header, r io.Reader) error {
	name = usr(name)
	if name == "/" || skip(name) {
		return nil
	}
	e := entry{header: *h}
	switch h.Typeflag {
	case tar.TypeDir, tar.TypeSymlink:
	case tar.TypeReg:
		b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if len(b) > maxFile {
			return fmt.Errorf("%s is larger than %d bytes", name, maxFile)
		}
		e.body = b
	case tar.TypeLink:
		target, ok := t[usr(path.Clean("/"+h.Linkname))]
		if !ok {
			return fmt.Errorf("%s is a link to %s, which is not in the image", name, h.Linkname)
		}
		e = target
	default:
		return fmt.Errorf("%s is of type %q", name, h.Typeflag)
	}
	t[name] = e
	return nil
}

// usr gives a path its place behind the merged directories.
func usr(name string) string {
	for _, d := range merged {
		if name == "/"+d || strings.HasPrefix(name, "/"+d+"/") {
			return "/usr" + name
		}
	}
	return name
}

func skip(name string) bool {
	for _, l := range left {
		if name == l || strings.HasPrefix(name, l+"/") {
			return true
		}
	}
	if strings.HasPrefix(name, "/usr/share/doc/") { // of documentation the licences stay
		return path.Base(name) != "copyright"
	}
	return strings.Contains(name, "/gconv") // character sets
}

// forbidden are programs that run what they are told.
var forbidden = []string{"sh", "bash", "dash", "busybox", "perl", "python3", "env"}

// check makes sure that the image is complete, and not more than that.
func (t tree) check() error {
	var libs []string
	for name := range t {
		libs = append(libs, path.Base(name))
	}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(t)) {
		if slices.Contains(forbidden, path.Base(name)) && t[name].header.Mode&0o111 != 0 && t[name].header.Typeflag == tar.TypeReg {
			problems = append(problems, fmt.Errorf("%s must not be in the image", name))
		}
		f, err := elf.NewFile(bytes.NewReader(t[name].body))
		if err != nil {
			continue // no program
		}
		needed, err := f.ImportedLibraries()
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		}
		for _, lib := range needed {
			if !slices.Contains(libs, lib) {
				problems = append(problems, fmt.Errorf("%s needs %s, which is not in the image", name, lib))
			}
		}
	}
	if _, ok := t["/usr/sbin/nginx"]; !ok {
		problems = append(problems, errors.New("there is no /usr/sbin/nginx"))
	}
	return errors.Join(problems...)
}
