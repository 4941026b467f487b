// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestProve: each block of a disk is proven behind what it hangs on, and only
// then; one bit more or less anywhere is not.
func TestProve(t *testing.T) {
	for _, blocks := range []int64{1, 2, 128, 129, 128*128 + 1} {
		disk, root := fullDisk(t, blocks)
		p, err := NewProver(blocks*BlockSize, root)
		if err != nil {
			t.Fatal(err)
		}
		if p.Blocks()*BlockSize != int64(len(disk)) {
			t.Fatalf("%d blocks of data: %d in all, of %d bytes", blocks, p.Blocks(), len(disk))
		}
		at := func(b int64) []byte { return disk[b*BlockSize : (b+1)*BlockSize] }
		if _, _, ok := p.Above(0); ok {
			if err := p.Prove(0, at(0)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%d blocks: proven by nothing: %v", blocks, err)
			}
		}
		var prove func(b int64)
		done := map[int64]bool{}
		prove = func(b int64) {
			if above, _, ok := p.Above(b); ok && !done[above] {
				prove(above)
			}
			wrong := bytes.Clone(at(b))
			wrong[rand.IntN(len(wrong))] ^= 1 << rand.IntN(8)
			if err := p.Prove(b, wrong); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%d blocks: block %d is wrong: %v", blocks, b, err)
			}
			if err := p.Prove(b, at(b)); err != nil {
				t.Errorf("%d blocks: %v", blocks, err)
			}
			done[b] = true
		}
		for b := int64(0); b < p.Blocks(); b += 1 + blocks/1000*7 {
			if !done[b] {
				prove(b)
			}
		}
		if got := int64(p.Proven()); blocks < 1000 && got != p.Blocks()-blocks {
			t.Errorf("%d blocks: %d of the tree proven", blocks, got)
		}
		for _, b := range []int64{-1, p.Blocks()} {
			// What the root is the hash of stands in one place only.
			if err := p.Prove(b, at(blocks%p.Blocks())); !errors.Is(err, ErrCorrupt) {
				t.Errorf("block %d of %d: %v", b, p.Blocks(), err)
			}
		}
		if err := p.Prove(0, at(0)[:100]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("a short block: %v", err)
		}
	}
	for _, size := range []int64{0, -4096, 100} {
		if _, err := NewProver(size, [HashSize]byte{}); !errors.Is(err, ErrSize) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// fullDisk is a disk of so many random blocks with its tree.
func fullDisk(t *testing.T, blocks int64) ([]byte, [HashSize]byte) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := NewBuilder(f, blocks*BlockSize)
	if err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, blocks*BlockSize+b.Size())
	if _, err := rand.NewChaCha8([32]byte{byte(blocks)}).Read(disk[:blocks*BlockSize]); err != nil {
		t.Fatal(err)
	}
	if err := b.Add(0, disk[:blocks*BlockSize]); err != nil {
		t.Fatal(err)
	}
	root, err := b.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(disk[blocks*BlockSize:], 0); err != nil && b.Size() > 0 {
		t.Fatal(err)
	}
	return disk, root
}
