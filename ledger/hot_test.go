// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger/tiles"
)

// What never changes is read once; everything else each time it is asked for.
func TestHot(t *testing.T) {
	dir := t.TempDir()
	write := func(path, content string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var h hot
	for path, kept := range map[string]bool{"tile/0/000": true, "tile/1/x001/000": true, "tile/0/001.p/7": false, "tile/entries/000": false, "checkpoint": false, "root/1.json": false} {
		for i, want := range []string{"first", "second"} {
			write(path, want)
			if kept {
				want = "first"
			}
			if got, err := h.read(tiles.Dir(dir), path); err != nil || string(got) != want {
				t.Errorf("%s, read %d: %q, %v, want %q", path, i, got, err, want)
			}
		}
	}
	for _, path := range []string{"tile/0/002", "tile/../secret", "tile/0/0000"} {
		for range 2 {
			if b, err := h.read(tiles.Dir(dir), path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %q, %v", path, b, err)
			}
		}
	}
	for i := range 3 * hotTiles {
		h.keep(fmt.Sprint(i), []byte{1})
	}
	if n := len(h.now) + len(h.old); n > 2*hotTiles {
		t.Errorf("%d tiles are kept", n)
	}
}

// A checkpoint is read again when another file has its name, or one that is so
// young that the next may look the same.
func TestHotCheckpoint(t *testing.T) {
	dir := t.TempDir()
	place := func(content string, at time.Time) {
		t.Helper()
		next, path := filepath.Join(dir, "next"), filepath.Join(dir, "checkpoint")
		if err := errors.Join(os.WriteFile(next, []byte(content), 0o600), os.Chtimes(next, at, at), os.Rename(next, path)); err != nil {
			t.Fatal(err)
		}
	}
	inPlace := func(content string, at time.Time) {
		t.Helper()
		path := filepath.Join(dir, "checkpoint")
		if err := errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	var h hot
	served := func(want string) {
		t.Helper()
		if got, err := h.read(tiles.Dir(dir), "checkpoint"); err != nil || string(got) != want {
			t.Errorf("served %q, %v, want %q", got, err, want)
		}
	}
	old, now := time.Now().Add(-time.Hour), time.Now().Add(time.Minute)
	place("one", old)
	served("one")
	inPlace("1ne", old) // nobody does: it shows that the file was not read
	served("one")
	place("two", old.Add(time.Nanosecond))
	served("two")
	place("three", old.Add(time.Nanosecond))
	served("three")
	place("young", now)
	served("young")
	inPlace("y0ung", now) // as a new file of the same inode, size and tick would look
	served("y0ung")
	place("old again", old)
	served("old again")
	if err := os.Remove(filepath.Join(dir, "checkpoint")); err != nil {
		t.Fatal(err)
	}
	if b, err := h.read(tiles.Dir(dir), "checkpoint"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a checkpoint that is gone: %q, %v", b, err)
	}
}
