// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"io"
)

// PartNames says where an image stands that has not all arrived at path: the
// disk with its holes, and a bit per chunk that is said to be in it.
func PartNames(path string) (disk, have string) { return path + ".part", path + ".have" }

// CheckHave says which chunks are in a disk, by their hashes; only those that
// the bits claim are looked at. Bits of another length claim nothing.
func CheckHave(disk io.ReaderAt, m Manifest, bits []byte) []bool {
	have := make([]bool, len(m.Chunks))
	if len(bits) != len(PackHave(have)) {
		return have
	}
	buf := make([]byte, MaxChunk)
	for i, c := range m.Chunks {
		if bits[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		b := buf[:c.Size]
		_, err := disk.ReadAt(b, c.Off)
		have[i] = err == nil && checkChunk(b, c) == nil
	}
	return have
}

// PackHave is the bits of CheckHave.
func PackHave(have []bool) []byte {
	bits := make([]byte, (len(have)+7)/8)
	for i, h := range have {
		if h {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	return bits
}
