// SPDX-License-Identifier: Apache-2.0

package capacity

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDivide(t *testing.T) {
	for _, c := range []struct{ available, tmpfs, memory, storage int64 }{
		{1800, 1600, 976, 557}, {100, 1600, 0, 0}, {8128, 1000, 6125, 1000}, {400, 1600, 160, 90},
	} {
		d := Divide(c.available, c.tmpfs)
		if d.MemoryMiB != c.memory || d.StorageMiB != c.storage {
			t.Errorf("%d and %d: %+v, want %d and %d", c.available, c.tmpfs, d, c.memory, c.storage)
		}
		if d.MemoryMiB+d.StorageMiB > max(c.available-reserveMiB, 0) {
			t.Errorf("%+v gives away more than there is", d)
		}
	}
}

func TestDivisionIsKept(t *testing.T) {
	dir := t.TempDir()
	a, err := Load(dir+"/c", dir)
	if err != nil || a.MemoryMiB == 0 {
		t.Fatal(a, err)
	}
	if err := os.WriteFile(dir+"/c", []byte(`{"memoryMiB":7,"storageMiB":8}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := Load(dir+"/c", dir); err != nil || b.MemoryMiB != 7 || b.StorageMiB != 8 {
		t.Error(b, err)
	}
}

func TestMeminfo(t *testing.T) {
	if n, err := field(strings.NewReader("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), "MemAvailable:"); err != nil || n != 2048 {
		t.Error(n, err)
	}
	if _, err := field(strings.NewReader("x"), "MemAvailable:"); err == nil {
		t.Error("found nothing, said nothing")
	}
}

// TestVolumesAreTaken: a sparse volume takes its whole size from what is free.
func TestVolumesAreTaken(t *testing.T) {
	dir := t.TempDir()
	volumes := filepath.Join(dir, "volumes")
	d := Division{StorageMiB: 1 << 40} // more than any test machine has
	before, err := d.Free(dir, volumes)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(volumes, "57"), 0o700); err != nil {
		t.Fatal(err)
	}
	const size = 1 << 20 // MiB: far more than anything else changes here meanwhile
	f, err := os.Create(filepath.Join(volumes, "57", "data.raw"))
	if err == nil {
		err = errors.Join(f.Truncate(size*mib), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	after, err := d.Free(dir, volumes)
	if taken := before - after; err != nil || taken < size*9/10 || taken > size*11/10 {
		t.Errorf("a volume of %d MiB takes %d MiB (%v)", size, taken, err)
	}
	if n, err := (Division{StorageMiB: 1}).Free(dir, volumes); n != 0 || err != nil {
		t.Errorf("more than there is: %d, %v", n, err)
	}
}
