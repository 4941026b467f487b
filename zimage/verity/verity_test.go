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

func TestHasherEqualsTree(t *testing.T) {
	for _, blocks := range sizes {
		d := data(blocks)
		leaves := make([]byte, blocks*HashSize)
		if err := Leaves(leaves, d); err != nil {
			t.Fatal(err)
		}
		want, wantRoot, err := Tree(leaves)
		if err != nil {
			t.Fatal(err)
		}
		var h Hasher
		for i, step := 0, 1; i < len(d); i, step = i+step, step*3%65537+1 {
			if _, err := h.Write(d[i:min(i+step, len(d))]); err != nil {
				t.Fatal(err)
			}
		}
		got, root, err := h.Tree()
		if err != nil {
			t.Fatal(err)
		}
		if root != wantRoot || !bytes.Equal(got, want) {
			t.Errorf("%d blocks: writing in pieces gives another tree", blocks)
		}
		if int64(len(got)) != TreeSize(int64(len(d))) {
			t.Errorf("%d blocks: tree has %d bytes, TreeSize says %d", blocks, len(got), TreeSize(int64(len(d))))
		}
	}
}

func TestPartOfABlock(t *testing.T) {
	var h Hasher
	if _, err := h.Write(make([]byte, BlockSize+1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.Tree(); !errors.Is(err, ErrSize) {
		t.Errorf("tree over part of a block: %v", err)
	}
	if _, _, err := Tree(nil); !errors.Is(err, ErrSize) {
		t.Errorf("tree over nothing: %v", err)
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
		var h Hasher
		if _, err := h.Write(d); err != nil {
			t.Fatal(err)
		}
		tree, root, err := h.Tree()
		if err != nil {
			t.Fatal(err)
		}
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
