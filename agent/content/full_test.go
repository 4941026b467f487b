// SPDX-License-Identifier: Apache-2.0

package content

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/zimage"
)

// TestFullDisk has a file system of 8 MiB that is full before the store's own
// bookkeeping says so: the refusal is clear, what was written is given back, so
// that the node can record it there, what is pinned stays whole, and with room
// again the same call succeeds.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP TestFullDisk: mounting needs root")
	}
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("SKIP TestFullDisk: mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	o := newOrigin(t, 1<<20, 6<<20)
	s, err := Open(o.config(filepath.Join(disk, "store")))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(1, s.ImagePath(o.ids[0])); err != nil {
		t.Fatal(err)
	}
	if _, err := o.image(t.Context(), s, 0); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(disk, "volume")
	if err := os.WriteFile(other, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, get := range map[string]func() (int64, error){
		"image": func() (int64, error) { return o.image(t.Context(), s, 1) },
		"blob":  func() (int64, error) { return s.Blob(t.Context(), o.blob) },
	} {
		t.Run(name, func(t *testing.T) {
			before := free(t, disk)
			_, err := get()
			if !errors.Is(err, zimage.ErrNoRoom) || !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "the file system of the store is full") {
				t.Fatalf("on a full disk: %v", err)
			}
			t.Log(err)
			if now := free(t, disk); now < before-100<<10 { // a manifest is kept
				t.Errorf("%d KiB free before, %d KiB after: nothing was given back", before>>10, now>>10)
			}
			if err := os.WriteFile(filepath.Join(disk, "record"), make([]byte, 16<<10), 0o600); err != nil {
				t.Errorf("the refusal cannot be recorded: %v", err)
			}
		})
	}
	if n, err := o.image(t.Context(), s, 0); n != 0 || err != nil {
		t.Errorf("what is pinned: %d, %v", n, err)
	}
	// To the last byte: not even a pin can be written.
	if err := fill(filepath.Join(disk, "rest")); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := s.Pin(2, s.ImagePath(o.ids[1])); !errors.Is(err, zimage.ErrNoRoom) {
		t.Errorf("pin on a full disk: %v", err)
	}
	if err := errors.Join(os.Remove(filepath.Join(disk, "rest")), os.Remove(other)); err != nil {
		t.Fatal(err)
	}
	if n, err := o.image(t.Context(), s, 1); n == 0 || err != nil {
		t.Errorf("with room again: %d, %v", n, err)
	}
}

func free(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize
}

func fill(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	return errors.Join(err, f.Close())
}
