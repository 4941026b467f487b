// SPDX-License-Identifier: Apache-2.0

package update

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/zos-node/zos/agent/update/fat"
)

// ErrNoRoom says that the boot partition has no room for a second image.
var ErrNoRoom = errors.New("no room on the boot partition")

const (
	margin    = 256 << 10 // stays free for the memory and for folders that grow
	pieceSize = 1 << 20   // what is read at once
)

// image is what is to be put in place.
type image struct {
	Version string
	Digest  string // "sha256:<hex>"
	Size    int64
	Path    string // of the verified file in memory
}

// install puts an image beside the one that runs, with its tries. It changes
// nothing before it knows that there is room, and never touches what runs.
func install(v *fat.Volume, running string, img image, m memory) (memory, error) {
	idle, err := others(v, running)
	if err != nil {
		return m, err
	}
	if err := roomFor(v, running, img.Size); err != nil {
		return m, err
	}
	// From here on a cut leaves no more than an unfinished file without a name
	// that the loader knows.
	m.State, m.Version, m.Reason, m.Told = stateWritten, img.Version, "", false
	if err := m.save(v); err != nil {
		return m, err
	}
	if err := clearIdle(v, idle); err != nil {
		return m, err
	}
	if err := write(v, img); err != nil {
		return m, err
	}
	return m, v.Rename(partPath, slot{Version: img.Version, Counted: true, Left: tries}.path())
}

// others are the images that do not run, and may go.
func others(v *fat.Volume, running string) ([]file, error) {
	all, err := slots(v)
	if err != nil {
		return nil, err
	}
	if base := named(all, running); base == nil || base.Counted {
		return nil, fmt.Errorf("the running image %s is not blessed on the boot partition: nothing could be fallen back to", running)
	}
	return slices.DeleteFunc(all, func(f file) bool { return f.Version == running }), nil
}

// roomFor says whether an image of so many bytes has a place beside the one
// that runs. It changes nothing.
func roomFor(v *fat.Volume, running string, size int64) error {
	idle, err := others(v, running)
	if err != nil {
		return err
	}
	free, have := v.Free(), int64(0)
	for _, p := range append(paths(idle), partPath) {
		n, err := v.Size(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		have += n
	}
	if free+have < size+margin {
		return fmt.Errorf("%w: the image has %d bytes, %d are free and %d are those of images that may go", ErrNoRoom, size, free, have)
	}
	return nil
}

func paths(all []file) []string {
	var out []string
	for _, s := range all {
		out = append(out, s.Path)
	}
	return out
}

// clearIdle takes every other image away from the loader; the space of one of
// them is what the next is written to.
func clearIdle(v *fat.Volume, idle []file) error {
	_, err := v.Size(partPath)
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, s := range idle {
		if there {
			if err := v.Remove(s.Path); err != nil {
				return err
			}
			continue
		}
		if err := v.Rename(s.Path, partPath); err != nil {
			return err
		}
		there = true
	}
	return nil
}

// write fills the unfinished file and reads it back from the disk.
func write(v *fat.Volume, img image) error {
	from, err := os.Open(img.Path)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	h := sha256.New()
	if err := errors.Join(v.Overwrite(partPath, io.TeeReader(from, h), img.Size), from.Close()); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != img.Digest {
		return fmt.Errorf("image: is %s in memory now, was %s", got, img.Digest)
	}
	got, err := hashOf(v, partPath)
	if err != nil {
		return err
	}
	if got != img.Digest {
		return fmt.Errorf("boot partition: reads back %s, %s was written: the disk does not keep what it is given", got, img.Digest)
	}
	return nil
}

func hashOf(v *fat.Volume, name string) (string, error) {
	r, err := v.Open(name)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, r, make([]byte, pieceSize)); err != nil {
		return "", fmt.Errorf("boot partition: read %s back: %w", name, err)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
