// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func data(blocks int) []byte {
	b := make([]byte, blocks*BlockSize)
	r := rand.NewChaCha8([32]byte{1})
	if _, err := r.Read(b); err != nil {
		panic(err)
	}
	return b
}

// One block, one level, the borders of one and two levels, three levels.
var sizes = []int{1, 2, 127, 128, 129, 128*128 - 1, 128 * 128, 128*128 + 1}

// built has a Builder make the tree, from pieces in a mixed order.
func built(t *testing.T, d []byte) ([]byte, [HashSize]byte) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := NewBuilder(f, int64(len(d)))
	if err != nil {
		t.Fatal(err)
	}
	var offs []int
	for i, step := 0, 1; i < len(d)/BlockSize; i, step = i+step, step*3%67+1 {
		offs = append(offs, i*BlockSize)
	}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(offs)) {
		end := len(d)
		if i+1 < len(offs) {
			end = offs[i+1]
		}
		if err := b.Add(int64(offs[i]), d[offs[i]:end]); err != nil {
			t.Fatal(err)
		}
	}
	root, err := b.Root()
	if err != nil {
		t.Fatal(err)
	}
	tree := make([]byte, b.Size())
	if _, err := f.ReadAt(tree, 0); err != nil && len(tree) > 0 {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != b.Size() {
		t.Fatalf("the file has %d bytes, want %d: %v", info.Size(), b.Size(), err)
	}
	return tree, root
}

// treeOf makes, from the hashes of all data blocks, the tree in the plain way,
// to compare with: the bytes that follow the data on disk, and the root hash.
func treeOf(leaves []byte) (tree []byte, root [HashSize]byte, err error) {
	sizes := levels(int64(len(leaves) / HashSize))
	var total int64
	for _, blocks := range sizes {
		total += blocks * BlockSize
	}
	tree = make([]byte, total)
	hashes, end := leaves, total
	for _, blocks := range sizes {
		level := tree[end-blocks*BlockSize : end]
		copy(level, hashes) // what remains of the last block stays zero
		hashes = make([]byte, blocks*HashSize)
		if err := Leaves(hashes, level); err != nil {
			return nil, root, err
		}
		end -= blocks * BlockSize
	}
	copy(root[:], hashes)
	return tree, root, nil
}

func TestBuilderEqualsTree(t *testing.T) {
	for _, blocks := range sizes {
		d := data(blocks)
		leaves := make([]byte, blocks*HashSize)
		if err := Leaves(leaves, d); err != nil {
			t.Fatal(err)
		}
		want, wantRoot, err := treeOf(leaves)
		if err != nil {
			t.Fatal(err)
		}
		got, root := built(t, d)
		if root != wantRoot || !bytes.Equal(got, want) {
			t.Errorf("%d blocks: built in a file it is another tree", blocks)
		}
		if int64(len(got)) != TreeSize(int64(len(d))) {
			t.Errorf("%d blocks: tree has %d bytes, TreeSize says %d", blocks, len(got), TreeSize(int64(len(d))))
		}
	}
}

func TestPartOfABlock(t *testing.T) {
	for _, size := range []int64{0, -BlockSize, BlockSize + 1} {
		if _, err := NewBuilder(nil, size); !errors.Is(err, ErrSize) {
			t.Errorf("tree over %d bytes: %v", size, err)
		}
	}
	b := &Builder{data: 2 * BlockSize}
	for off, blocks := range map[int64]int{1: BlockSize, 0: BlockSize + 1, -BlockSize: BlockSize, BlockSize: 2 * BlockSize} {
		if err := b.Add(off, make([]byte, blocks)); !errors.Is(err, ErrSize) {
			t.Errorf("%d bytes at %d: %v", blocks, off, err)
		}
	}
	if err := Leaves(make([]byte, HashSize), make([]byte, 1)); !errors.Is(err, ErrSize) {
		t.Errorf("leaves of one byte: %v", err)
	}
}

// TestVeritysetup has the tool that made the format judge our trees.
func TestVeritysetup(t *testing.T) {
	tool, err := exec.LookPath("veritysetup")
	if err != nil {
		t.Skip("SKIP TestVeritysetup: no veritysetup (package cryptsetup-bin)")
	}
	for _, blocks := range sizes[1:] { // one block has no tree, which the tool cannot check
		d := data(blocks)
		tree, root := built(t, d)
		disk := filepath.Join(t.TempDir(), "disk")
		for _, c := range []struct {
			name string
			flip int
			want bool
		}{{"as it is", -1, true}, {"data altered", 5, false}, {"tree altered", len(d) + 3, false}} {
			b := append(append([]byte{}, d...), tree...)
			if c.flip >= 0 {
				b[c.flip] ^= 1
			}
			if err := os.WriteFile(disk, b, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(tool, "verify", "--no-superblock", "--format=1", "--hash=sha256",
				"--data-block-size=4096", "--hash-block-size=4096", "--salt=-",
				fmt.Sprintf("--data-blocks=%d", blocks), fmt.Sprintf("--hash-offset=%d", len(d)),
				disk, disk, hex.EncodeToString(root[:])).CombinedOutput()
			if (err == nil) != c.want {
				t.Errorf("%d blocks, %s: veritysetup: %v: %s", blocks, c.name, err, out)
			}
		}
	}
}
