// SPDX-License-Identifier: Apache-2.0

// Package tree tells everything about the files of a folder, name by name, so that
// what two programs made of one image can be compared: what the kernel sees of a
// Zero-Image, and what another tool unpacks. Tests and benchmarks use it.
package tree

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// Describe tells of each name under root its kind, mode, owner, time to the
// nanosecond, extended attributes, content or target, and which names are links to
// the same file; all but the number of its inode, and but for device nodes, which no
// image keeps. Names begin with "/", which is the root itself. Of the directories
// that untimed says, the time is left out.
func Describe(root string, untimed func(dir string) bool) (map[string]string, error) {
	out, inodes := map[string]string{}, map[uint64][]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("stat %s: %w", path, err)
		}
		name := "/" + strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		text := fmt.Sprintf("mode=%o owner=%d:%d", st.Mode, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR, unix.S_IFBLK:
			return nil
		case unix.S_IFREG:
			content, err := sum(path)
			if err != nil {
				return err
			}
			text += content
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " -> " + target
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if !isDir {
			inodes[st.Ino] = append(inodes[st.Ino], name)
			text += fmt.Sprintf(" links=%d", st.Nlink)
		}
		if !isDir || !untimed(name) {
			text += fmt.Sprintf(" time=%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		attrs, err := xattrs(path)
		out[name] = text + attrs
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", root, err)
	}
	for _, names := range inodes {
		for _, n := range names {
			out[n] += fmt.Sprintf(" same inode as %q", names)
		}
	}
	return out, nil
}

// sum is length and hash of a file.
func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() // was only read
	h := sha256.New()
	n, err := io.Copy(h, f)
	return fmt.Sprintf(" size=%d sum=%x", n, h.Sum(nil)), err
}

func xattrs(path string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("attributes of %s: %w", path, err)
	}
	var out []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", fmt.Errorf("attribute %s of %s: %w", name, path, err)
		}
		out = append(out, fmt.Sprintf(" %s=%x", name, value[:n]))
	}
	sort.Strings(out)
	return strings.Join(out, ""), nil
}

// Differences tells each name of which two descriptions do not say the same, in the
// order of the names.
func Differences(got, want map[string]string) (out []string) {
	all := maps.Clone(want)
	maps.Copy(all, got)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		g, w := got[name], want[name]
		switch {
		case g == w:
		case w == "":
			out = append(out, fmt.Sprintf("%q is in the image only: %q", name, g))
		case g == "":
			out = append(out, fmt.Sprintf("%q is not in the image, want %q", name, w))
		default:
			out = append(out, fmt.Sprintf("%q is\n%q, want\n%q", name, g, w))
		}
	}
	return out
}
