// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// A writer that resumes at any size writes the same files as one that never
// stopped, and refuses an edge that is not the tree's.
func TestResume(t *testing.T) {
	const end = 70_000
	entry := func(i int) []byte { return fmt.Appendf(nil, "entry %d", i) }
	whole := NewWriter("")
	var sizes = []int{1, 2, 255, 256, 257, 511, 512, 700, 65_535, 65_536, 65_537, 66_000}
	trees := map[int]Tree{}
	for i := range end {
		whole.push(entry(i))
		trees[i+1] = whole.Tree()
	}
	dir := Dir(t.TempDir())
	w := NewWriter(dir)
	var batch [][]byte
	for i := range end {
		batch = append(batch, entry(i))
	}
	if err := w.Append(batch); err != nil {
		t.Fatal(err)
	}
	for _, size := range sizes {
		again := NewWriter(dir)
		if err := again.Resume(trees[size]); err != nil {
			t.Errorf("size %d: %v", size, err)
			continue
		}
		for i := size; i < end; i++ {
			again.push(entry(i))
		}
		if again.Head() != whole.Head() || string(again.bundle) != string(whole.bundle) || fmt.Sprint(again.levels) != fmt.Sprint(whole.levels) {
			t.Errorf("resumed at %d: ends with another edge", size)
		}
	}
	if err := NewWriter(dir).Resume(trees[60_000].Append(trees[1].Hash())); err == nil {
		t.Error("resumed with a tree that the files do not have")
	}
	for _, path := range []string{"tile/entries/234.p/96", "tile/0/234.p/96", "tile/1/000.p/234"} {
		size := 234*Width + 96
		cut, err := dir.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := Dir(t.TempDir())
		for _, other := range []string{"tile/entries/234.p/96", "tile/0/234.p/96", "tile/1/000.p/234"} {
			b, err := dir.Read(other)
			if err != nil {
				t.Fatal(err)
			}
			if other == path {
				b = append([]byte{}, cut...)
				b[len(b)/2] ^= 1
			}
			if err := NewWriter(bad).Put(other, b); err != nil {
				t.Fatal(err)
			}
		}
		if err := NewWriter(bad).Resume(trees[size]); err == nil {
			t.Errorf("resumed with another %s", path)
		}
	}
}

func TestPrune(t *testing.T) {
	dir := Dir(t.TempDir())
	w := NewWriter(dir)
	for range 6 { // partial bundles lie beside the full ones
		var batch [][]byte
		for i := range 200 {
			batch = append(batch, fmt.Appendf(nil, "%d", i))
		}
		if err := w.Append(batch); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int{2, 0} {
		if n, err := dir.Prune(3*Width + 5); err != nil || n != want {
			t.Errorf("removed %d, %v; want %d", n, err, want)
		}
	}
	for n, there := range []bool{true, false, false, true} {
		if _, err := dir.Read(BundlePath(int64(n), Width)); (err == nil) != there || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("bundle %d: %v", n, err)
		}
		if _, err := os.Stat(filepath.Join(string(dir), fmt.Sprintf("tile/0/%03d", n))); n < 3 && err != nil {
			t.Errorf("hashes %d: %v", n, err)
		}
	}
}
