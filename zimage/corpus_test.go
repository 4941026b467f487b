// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"archive/tar"
	"fmt"
	"strings"
	"time"
)

// corner is an image at a corner of tar or of OCI layers, and the verity root
// that Format 1 gives it. A root here never changes: a converter that gives
// another one needs another format number.
type corner struct {
	name   string
	root   string
	layers [][]item
}

func corners() []corner {
	mode := func(m int64) func(*tar.Header) { return func(h *tar.Header) { h.Mode = m } }
	attrs := func(kv ...string) func(*tar.Header) {
		return func(h *tar.Header) {
			h.PAXRecords = map[string]string{}
			for i := 0; i < len(kv); i += 2 {
				h.PAXRecords["SCHILY.xattr."+kv[i]] = kv[i+1]
			}
		}
	}
	text := func(name string) item { return file(name, []byte("content of "+name+"\n")) }
	gnu := func(h *tar.Header) { h.Format = tar.FormatGNU }
	long := strings.Repeat("l", 255)
	deep := strings.Repeat("directory/", 30)

	var sizes, many []item
	for i, n := range []int{0, 1, 31, 32, 4031, 4032, 4033, 4096, 4097, 8127, 8128, 8129, 65535, 65536, 65537, 300000} {
		sizes = append(sizes, file(fmt.Sprintf("s%06d", n), noise(n, byte(i))))
	}
	for i := range 700 {
		many = append(many, text(fmt.Sprintf("d/%s%03d", strings.Repeat("n", i%40), i)))
	}
	return []corner{
		{"empty", "0f4d384d93c628d0a30025a24ecb19893501b8dc6333c25271db47315f81f3f5", [][]item{{}}},
		{"no layers", "0f4d384d93c628d0a30025a24ecb19893501b8dc6333c25271db47315f81f3f5", nil},
		{"sizes around every border", "5ab515844509200f320c2747b33d5ce0c5514cc7032f9d6bbc55fe122d60d010", [][]item{sizes}},
		{"directory of many blocks", "5feabd2166a4107db3b171195c23be5d93585c7390841bc8d6ad9df1fcb8e1e2", [][]item{many}},
		{"names that sort around dot, and bytes", "b7480d9d19e8db093070205b0c27c3425e5cc461382cf2a7e048478fcbd7dac2", [][]item{{
			text("-a"), text(".a"), text("..a"), text("!"), text("a b"), text("\xff\xfe"), text("é"), text("A"), text(long)}}},
		{"long names, PAX and GNU", "6c50e36c0936d01ee3e29adf81a3c505ba829899883d32761b499fff157f500c", [][]item{{
			text(deep + long), text("gnu/" + deep + long).with(gnu), symlink("gnu/s", deep+long).with(gnu)}}},
		{"hard links", "13354881faa5f9336caa789282d127b95d6d3d368aa24215094aa1f34b0a3641", [][]item{{
			text("a"), link("b", "a"), link("d/c", "./a"), symlink("s", "a"), link("s2", "s"), link("abs", "/a")}}},
		{"hard links across layers", "6fb28cb67cb64a6ba0ccd81dbdef17bc6294ba973189fd3c54e606d4bc5d39cc", [][]item{
			{text("a"), link("b", "a"), text("x"), text("only")},
			{link("c", "b"), file("a", []byte("new")), file(".wh.x", nil), link("y", "only")}}},
		{"whiteout before and behind its layer's content", "9207a2524f6cbe349db689d1b60d91107fd951cb80ea9a711ac32f7f477e8d84", [][]item{
			{text("d/old"), text("d/sub/old"), text("e/old"), text("f"), text("keep")},
			{file(".wh.d", nil), text("d/new"), text("e/new"), file(".wh.e", nil), text("f"), file(".wh.f", nil), file(".wh.none", nil)}}},
		{"opaque before and behind its layer's content", "6446446fc36a3e7cde585e98e018e3721a9f654bb6cbf2a0d8544efa1373d286", [][]item{
			{text("d/old"), text("d/sub/old"), text("e/old"), text("e/sub/old"), text("keep/me")},
			{folder("d"), file("d/.wh..wh..opq", nil), text("d/new"), text("e/new"), text("e/sub/new"), file("e/.wh..wh..opq", nil), file(".wh..wh.plnk", nil)}}},
		{"extended attributes", "317294b3fa5e93e828488c9abe4d0e96b1259f57d0a4468c1d4ab8328ec3fba6", [][]item{{
			text("cap").with(attrs("security.capability", "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")),
			text("user").with(attrs("user.b", "2", "user.a", "", "user."+long[:200], strings.Repeat("v", 2000))),
			file("big", noise(5000, 3)).with(attrs("user.x", strings.Repeat("v", 3000))),
			folder("dir").with(attrs("user.on", "directory")),
			text("other").with(attrs("trusted.overlay.opaque", "y", "security.selinux", "z"))}}},
		{"modes and owners", "3f23c28601ff2c3ac168b76e865c5a9f575a7570396689624f0e66b822ac6159", [][]item{{
			folder("./").with(mode(0o751)), text("suid").with(mode(0o4755)), text("sgid").with(mode(0o2755)),
			folder("sticky").with(mode(0o1777)), text("none").with(mode(0)),
			text("big").with(func(h *tar.Header) { h.Uid, h.Gid = 1<<31, 1<<32-2 }),
			text("typebits").with(mode(0o100640))}}},
		{"times", "8c0840bbc38e38d28c615b9a2e95d11a1a55bd83e07f557a0335fa5bbd8cf96a", [][]item{{
			text("frac").with(func(h *tar.Header) { h.ModTime, h.Format = time.Unix(5, 999999999), tar.FormatPAX }),
			text("old").with(func(h *tar.Header) { h.ModTime, h.Format = time.Unix(-100, 0), tar.FormatPAX }),
			text("far").with(func(h *tar.Header) { h.ModTime, h.Format = time.Unix(1<<33, 0), tar.FormatPAX })}}},
		{"symlinks", "d77900fa4828a74aa57688fbeed30fca3e95b6fb86e236e96b16855820097622", [][]item{{
			symlink("short", "x"), symlink("up", "../../../etc/passwd"), symlink("abs", "/none"), symlink("loop", "loop"),
			symlink("inline", strings.Repeat("i", 4032)), symlink("block", strings.Repeat("b", 4033)), symlink("max", strings.Repeat("m", 4095))}}},
		{"devices go, FIFOs stay", "0e3105c6693c2fef6ae8f4c85a4ddd7450c0170d4f10e34a5fd71cd0881db957", [][]item{{
			{tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, nil},
			{tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o660}, nil},
			{tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o640, ModTime: stamp}, nil}}}},
		{"parents: missing, and symlinks", "1908b33efa999f9b507b84d5689c34c7bd93ef127ed3316ce293f4c62dae2b4d", [][]item{
			{text("usr/lib/a"), text("usr/lib/c"), symlink("lib", "usr/lib"), symlink("lib2", "./lib")},
			{text("lib/b"), text("lib2/d"), text("x/y/z"), link("e", "lib2/c"), file("lib/.wh.a", nil)}}},
		{"one kind over another", "000b4ea0d1d12032e9acdae42582d9af6e680fbf3cdff25e13699893d0f8f51a", [][]item{
			{text("d/x"), text("f"), symlink("s", "d"), text("dir/keep")},
			{text("d"), folder("f"), text("f/x"), folder("s"), folder("dir").with(mode(0o700))}}},
		{"twice in one layer, and odd spellings", "9ee0141eff75db81623f69a7af5753a92ff8d9c91df4e8ca94e48ecec8baf206", [][]item{{
			text("a"), file("a", []byte("last wins")), text("./b"), text("/c"), text(".//d//e"), folder("g/")}}},
	}
}
