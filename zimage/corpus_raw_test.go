// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"fmt"
	"strings"
)

// rawCorner is a layer that Go's tar writer does not write.
type rawCorner struct {
	name string
	root string
	tar  []byte
}

// block is one tar header, byte by byte.
type block struct {
	name, link, prefix string
	kind               byte
	magic              string // "ustar\x0000", "ustar  \x00", or none for the tar of 1979
	mode, uid, gid     string // octal, or as given where it does not start with a digit
	size, mtime        string
	tail               string // from byte 345 on, for GNU's fields
}

func (b block) bytes() []byte {
	h := make([]byte, 512)
	copy(h[0:100], b.name)
	number := func(at, n int, s string) {
		if s == "" {
			s = "0"
		}
		if s[0] >= '0' && s[0] <= '7' {
			s = strings.Repeat("0", n-1-len(s)) + s
		}
		copy(h[at:at+n], s)
	}
	number(100, 8, b.mode)
	number(108, 8, b.uid)
	number(116, 8, b.gid)
	number(124, 12, b.size)
	number(136, 12, b.mtime)
	h[156] = b.kind
	copy(h[157:257], b.link)
	copy(h[257:265], b.magic)
	copy(h[345:500], b.prefix)
	copy(h[345:512], b.tail)
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

const (
	ustar  = "ustar\x0000"
	gnuTar = "ustar  \x00"
)

// padded fills content up to whole blocks.
func padded(b []byte) []byte { return append(b[:len(b):len(b)], make([]byte, (512-len(b)%512)%512)...) }

func octal(n int) string { return fmt.Sprintf("%o", n) }

// pax is an extended header.
func pax(records ...string) []byte {
	var b bytes.Buffer
	for i := 0; i < len(records); i += 2 {
		n := len(records[i]) + len(records[i+1]) + 3
		for len(fmt.Sprint(n))+len(records[i])+len(records[i+1])+3 != n {
			n = len(fmt.Sprint(n)) + len(records[i]) + len(records[i+1]) + 3
		}
		fmt.Fprintf(&b, "%d %s=%s\n", n, records[i], records[i+1])
	}
	return join(block{name: "PaxHeaders/x", kind: 'x', magic: ustar, mode: "644", size: octal(b.Len())}.bytes(), padded(b.Bytes()))
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// sparseEntries writes GNU's fields of old sparse files: place and length.
func sparseEntries(n int, pairs ...int) string {
	b := make([]byte, n*24)
	for i, v := range pairs {
		copy(b[i*12:], fmt.Sprintf("%011o\x00", v))
	}
	return string(b)
}

func rawCorners() []rawCorner {
	end := make([]byte, 1024)
	content := []byte("content\n")
	plain := block{name: "a", mode: "644", kind: '0', magic: ustar, size: octal(len(content)), mtime: octal(1700000000)}
	with := func(change func(*block)) []byte {
		b := plain
		change(&b)
		return join(b.bytes(), padded(content))
	}
	data := noise(3*512, 5)

	// GNU's old sparse form: 4 pieces in the header, more in blocks behind it.
	// A last piece of length 0 tells where the file ends.
	tail := make([]byte, 167)
	copy(tail[386-345:], sparseEntries(4, 4096, 512, 8192, 512, 12288, 512, 100000, 0))
	copy(tail[483-345:], fmt.Sprintf("%011o\x00", 100000))
	old := join(block{name: "old", mode: "600", kind: 'S', magic: gnuTar, size: octal(len(data)), mtime: "1", tail: string(tail)}.bytes(), data)
	tail = make([]byte, 167)
	copy(tail[386-345:], sparseEntries(4, 512, 512, 2048, 512, 5120, 512, 6144, 512))
	tail[482-345] = 1 // continued
	copy(tail[483-345:], fmt.Sprintf("%011o\x00", 1<<20))
	more := make([]byte, 512)
	copy(more, sparseEntries(21, 70144, 512, 1<<20, 0))
	long := join(block{name: "more", mode: "600", kind: 'S', magic: gnuTar, size: octal(5 * 512), mtime: "1", tail: string(tail)}.bytes(), more, noise(5*512, 6))

	pax01 := join(pax("GNU.sparse.size", "50000", "GNU.sparse.numblocks", "2", "GNU.sparse.map", "1000,512,49000,1000", "GNU.sparse.name", "pax01"),
		block{name: "GNUSparseFile.0/pax01", mode: "644", kind: '0', magic: ustar, size: octal(1512), mtime: "1"}.bytes(), padded(data[:1512]))
	table := padded([]byte("3\n4096\n512\n70000\n1024\n80000\n0\n"))
	pax10 := join(pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "pax10", "GNU.sparse.realsize", "80000"),
		block{name: "GNUSparseFile.0/pax10", mode: "644", kind: '0', magic: ustar, size: octal(512 + 1536), mtime: "1"}.bytes(), table, data)

	return []rawCorner{
		{"sparse files of GNU's old form", "15f12a0952fe4d39d5a6b2eabf911ab86871e2df6454551b7b85db01e2b89e35", join(old, long, end)},
		{"sparse files in PAX", "656443a53b9f6aa6c214f791d5a2cf497e32038c44b81c6e2d14faeac4420739", join(pax01, pax10, end)},
		{"the tar of 1979", "04143982e77566c771fa4b5fee8dc79b0d109211c1f6851705c35ccf320f3ee7", join(with(func(b *block) { b.magic, b.kind = "", 0 }),
			block{name: "d/", mode: "755", mtime: "5"}.bytes(), end)},
		{"a prefix", "47b8cd5dfa06acb06c93c4a282ba452fa2d7e9b9117fb2ed4f944aa64a507ed0", join(with(func(b *block) { b.prefix, b.name = "usr/lib", strings.Repeat("n", 100) }), end)},
		{"numbers in base 256", "8ebf8cdd71a86fafcef7fbf9652b068845e4f12da724df06a05822ba70c6876e", join(with(func(b *block) {
			b.magic, b.uid, b.gid = gnuTar, "\x80\x00\x00\x00\x7f\xff\xff\xff", "\x80\x00\x00\x00\x00\x00\x00\x05"
			b.mtime, b.size = "\x80\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00", "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08"
		}), end)},
		{"a contiguous file", "c2d5576aca0e519768b5c5c262bc571d533edda311f42471d507021ed4a6303d", join(with(func(b *block) { b.kind = '7' }), end)},
		{"nothing behind the last entry", "c2d5576aca0e519768b5c5c262bc571d533edda311f42471d507021ed4a6303d", with(func(*block) {})},
		{"anything behind the end", "c2d5576aca0e519768b5c5c262bc571d533edda311f42471d507021ed4a6303d", join(with(func(*block) {}), end, with(func(b *block) { b.name = "hidden" }), []byte("junk"))},
		{"records twice, and of other programs", "afcaec940373a0eb187e0640ef6725d804bb19f28835d8a293bb5b87d3f9f575", join(
			pax("path", "first", "path", "second", "SCHILY.xattr.user.a", "1", "SCHILY.xattr.user.a", "2", "LIBARCHIVE.xattr.user.b", "eA==", "mtime", "7.5"),
			with(func(*block) {}), end)},
	}
}
