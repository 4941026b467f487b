// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
)

// whole is a disk: data, and its tree behind it.
func whole(t *testing.T, blocks int) ([]byte, [HashSize]byte) {
	t.Helper()
	d := data(blocks)
	leaves := make([]byte, blocks*HashSize)
	if err := Leaves(leaves, d); err != nil {
		t.Fatal(err)
	}
	tree, root, err := treeOf(leaves)
	if err != nil {
		t.Fatal(err)
	}
	return append(d, tree...), root
}

// TestCheck alters disks of one, two and three levels, in the data, in every
// level of the tree, and in the zeros at a level's end.
func TestCheck(t *testing.T) {
	for _, blocks := range []int{1, 2, 127, 128, 129, 128*128 + 1} {
		disk, root := whole(t, blocks)
		size := int64(blocks) * BlockSize
		if err := Check(bytes.NewReader(disk), size, root, 3, nil); err != nil {
			t.Fatalf("%d blocks: %v", blocks, err)
		}
		other := root
		other[31] ^= 1
		if err := Check(bytes.NewReader(disk), size, other, 1, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d blocks, another root: %v", blocks, err)
		}
		if err := Check(bytes.NewReader(disk[:len(disk)-1]), size, root, 2, nil); !errors.Is(err, io.EOF) {
			t.Errorf("%d blocks, cut: %v", blocks, err)
		}
		places := map[int]bool{0: true, int(size) - 1: true, len(disk) - 1: true}
		end := len(disk)
		for _, n := range levels(int64(blocks)) { // the borders of each level
			places[end-1], places[end-int(n)*BlockSize] = true, true
			end -= int(n) * BlockSize
		}
		for at := range places {
			disk[at] ^= 0x10
			if err := Check(bytes.NewReader(disk), size, root, 2, nil); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%d blocks, byte %d of %d altered: %v", blocks, at, len(disk), err)
			}
			disk[at] ^= 0x10
		}
	}
	if err := Check(bytes.NewReader(nil), 4095, [HashSize]byte{}, 1, nil); !errors.Is(err, ErrSize) {
		t.Errorf("half a block: %v", err)
	}
}

// TestCheckIsPaced: every byte that is read was announced, and an error ends it.
func TestCheckIsPaced(t *testing.T) {
	disk, root := whole(t, 129)
	read := 0
	count := func(n int) error { read += n; return nil }
	if err := Check(bytes.NewReader(disk), 129*BlockSize, root, 1, count); err != nil {
		t.Fatal(err)
	}
	if read < len(disk) { // hashes are read as hashes, and to be hashed
		t.Errorf("%d of %d bytes were announced", read, len(disk))
	}
	stop := errors.New("stop")
	if err := Check(bytes.NewReader(disk), 129*BlockSize, root, 1, func(int) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// zeros is a disk of nothing but zeros, with the tree that is right for it. It
// takes no memory: all data blocks are alike, and so are all hash blocks of a
// level but its last.
type zeros struct {
	data  int64
	block [][]byte // a full one of each level
	start []int64
}

func newZeros(data int64) (z zeros, root [HashSize]byte) {
	z = zeros{data: data}
	below, end := make([]byte, BlockSize), data+TreeSize(data)
	for _, blocks := range levels(data / BlockSize) {
		full := make([]byte, BlockSize)
		for i := 0; i < perBlock; i++ {
			if err := Leaves(full[i*HashSize:][:HashSize], below); err != nil {
				panic(err)
			}
		}
		end -= blocks * BlockSize
		z.block, z.start, below = append(z.block, full), append(z.start, end), full
	}
	if err := Leaves(root[:], below); err != nil {
		panic(err)
	}
	return z, root
}

func (z zeros) ReadAt(b []byte, at int64) (int, error) {
	for n := 0; n < len(b); n += BlockSize {
		part := b[n : n+BlockSize]
		if at+int64(n) < z.data {
			clear(part)
			continue
		}
		for i, start := range z.start {
			if at+int64(n) >= start {
				copy(part, z.block[i])
				break
			}
		}
	}
	return len(b), nil
}

// TestCheckIsFlat: what a check takes does not depend on the disk's size. The
// larger disk's hashes alone are 2 MiB.
func TestCheckIsFlat(t *testing.T) {
	takes := func(size int64) uint64 {
		z, root := newZeros(size)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := Check(z, size, root, 2, nil); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	const full = perBlock * BlockSize // levels are full only at powers of this
	small, large := takes(full), takes(perBlock*full)
	t.Logf("%d KiB of disk: %d KiB in all; %d KiB of disk: %d KiB", full>>10, small>>10, perBlock*full>>10, large>>10)
	// Each level costs its buffers anew.
	if large > small*3 {
		t.Errorf("it grows: %d bytes for %d, %d for %d", small, int64(full), large, int64(perBlock*full))
	}
}
