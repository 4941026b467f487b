// SPDX-License-Identifier: Apache-2.0

package root

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/zos-node/zos/guest/wire"
)

// ErrPath is a path of the spec that the image has no place for.
var ErrPath = errors.New("path does not fit the image")

const maxLinks = 40

// Resolve follows an absolute path inside an image's root and returns it
// without symbolic links: a link in the image must never lead out of it, and
// in the layer above it must not be replaced by a folder. What does not exist
// stays as it is. last says whether a link at the very end is followed.
func Resolve(image, name string, last bool) (string, error) {
	if !path.IsAbs(name) || path.Clean(name) != name {
		return "", fmt.Errorf("%w: %q is not absolute and clean", ErrPath, name)
	}
	done, todo, links := "/", strings.Split(name[1:], "/"), 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		info, err := os.Lstat(filepath.Join(image, next))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		if err != nil || info.Mode().Type() != fs.ModeSymlink || len(todo) == 0 && !last {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%w: %s: too many symbolic links", ErrPath, name)
		}
		target, err := os.Readlink(filepath.Join(image, next))
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		if path.IsAbs(target) {
			done = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return done, nil
}

// Layer is the folder over the image.
type Layer struct {
	Image, Dir string
}

// Folder makes sure that a folder is there, in the image or in the layer, and
// returns its resolved path.
func (l Layer) Folder(name string) (string, error) {
	at, err := Resolve(l.Image, name, true)
	if err != nil {
		return "", err
	}
	return at, l.folders(at)
}

// folders repeats the image's folders in the layer: in an overlay the upper
// folder's owner and mode are what is seen, so they are copied.
func (l Layer) folders(at string) error {
	if at == "/" {
		return nil
	}
	if err := l.folders(path.Dir(at)); err != nil {
		return err
	}
	mode, uid, gid := fs.FileMode(0o755), 0, 0
	info, err := os.Lstat(filepath.Join(l.Image, at))
	switch {
	case err == nil && !info.IsDir():
		return fmt.Errorf("%w: %s is no folder in the image", ErrPath, at)
	case err == nil:
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: no owner", at)
		}
		mode, uid, gid = info.Mode()&(fs.ModePerm|fs.ModeSticky|fs.ModeSetgid|fs.ModeSetuid), int(st.Uid), int(st.Gid)
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%s: %w", at, err)
	}
	here := filepath.Join(l.Dir, at)
	if err := os.Mkdir(here, 0o700); errors.Is(err, fs.ErrExist) {
		if info, err := os.Lstat(here); err != nil || !info.IsDir() {
			return fmt.Errorf("%w: %s is a file of the spec", ErrPath, at)
		}
		return nil
	} else if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	return own(here, uid, gid, mode)
}

// own sets the mode last: changing the owner clears set-id bits.
func own(name string, uid, gid int, mode fs.FileMode) error {
	if err := os.Lchown(name, uid, gid); err != nil {
		return err
	}
	return os.Chmod(name, mode)
}

// Attributes copies the image's root folder's owner and mode to the layer's.
func (l Layer) Attributes() error {
	info, err := os.Stat(l.Image)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("image: no owner")
	}
	return own(l.Dir, int(st.Uid), int(st.Gid), info.Mode().Perm())
}

// File places a file. Where the image has one, also a link, it is covered; a
// folder is not.
func (l Layer) File(f wire.File) error {
	at, err := Resolve(l.Image, f.Path, false)
	if err != nil {
		return err
	}
	if at == "/" {
		return fmt.Errorf("%w: %s is no file", ErrPath, f.Path)
	}
	if err := l.folders(path.Dir(at)); err != nil {
		return err
	}
	if info, err := os.Lstat(filepath.Join(l.Image, at)); err == nil && info.IsDir() {
		return fmt.Errorf("%w: %s is a folder in the image", ErrPath, f.Path)
	}
	here := filepath.Join(l.Dir, at)
	w, err := os.OpenFile(here, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("file %s: %w", f.Path, err)
	}
	_, err = w.Write(f.Content)
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("file %s: %w", f.Path, err)
	}
	if err := own(here, f.UID, f.GID, unixMode(f.Mode)); err != nil {
		return fmt.Errorf("file %s: %w", f.Path, err)
	}
	return nil
}

// unixMode turns the twelve bits of a mode into Go's.
func unixMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	for bit, is := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&bit != 0 {
			mode |= is
		}
	}
	return mode
}
