// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"
)

// corner is an image at a corner of tar or of OCI layers, and the verity root
// that Format 4 gives it. A root here never changes: a converter that gives
// another one needs another format number.
type corner struct {
	name   string
	root   string
	layers [][]item
	differ string // why GNU tar on this machine's file system makes another tree
}

// tars gives the layers as they are in the image.
func (c corner) tars(t testing.TB) [][]byte {
	t.Helper()
	var out [][]byte
	for _, l := range c.layers {
		out = append(out, tarOf(t, l))
	}
	return out
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
	at := func(sec, nsec int64) func(*tar.Header) {
		return func(h *tar.Header) { h.ModTime, h.Format = time.Unix(sec, nsec), tar.FormatPAX }
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
		{"empty", "0f4d384d93c628d0a30025a24ecb19893501b8dc6333c25271db47315f81f3f5", [][]item{{}}, ""},
		{"no layers", "0f4d384d93c628d0a30025a24ecb19893501b8dc6333c25271db47315f81f3f5", nil, ""},
		{"sizes around every border", "5ab515844509200f320c2747b33d5ce0c5514cc7032f9d6bbc55fe122d60d010", [][]item{sizes}, ""},
		{"directory of many blocks", "5feabd2166a4107db3b171195c23be5d93585c7390841bc8d6ad9df1fcb8e1e2", [][]item{many}, ""},
		{"names that sort around dot, and bytes", "b7480d9d19e8db093070205b0c27c3425e5cc461382cf2a7e048478fcbd7dac2", [][]item{{
			text("-a"), text(".a"), text("..a"), text("!"), text("a b"), text("\xff\xfe"), text("é"), text("A"), text(long)}}, ""},
		{"long names, PAX and GNU", "6c50e36c0936d01ee3e29adf81a3c505ba829899883d32761b499fff157f500c", [][]item{{
			text(deep + long), text("gnu/" + deep + long).with(gnu), symlink("gnu/s", deep+long).with(gnu)}}, ""},
		{"hard links", "13354881faa5f9336caa789282d127b95d6d3d368aa24215094aa1f34b0a3641", [][]item{{
			text("a"), link("b", "a"), link("d/c", "./a"), symlink("s", "a"), link("s2", "s"), link("abs", "/a")}}, ""},
		{"hard links across layers", "6fb28cb67cb64a6ba0ccd81dbdef17bc6294ba973189fd3c54e606d4bc5d39cc", [][]item{
			{text("a"), link("b", "a"), text("x"), text("only")},
			{link("c", "b"), file("a", []byte("new")), file(".wh.x", nil), link("y", "only")}}, ""},
		{"whiteout before and behind its layer's content", "9207a2524f6cbe349db689d1b60d91107fd951cb80ea9a711ac32f7f477e8d84", [][]item{
			{text("d/old"), text("d/sub/old"), text("e/old"), text("f"), text("keep")},
			{file(".wh.d", nil), text("d/new"), text("e/new"), file(".wh.e", nil), text("f"), file(".wh.f", nil), file(".wh.none", nil)}}, ""},
		{"opaque before and behind its layer's content", "6446446fc36a3e7cde585e98e018e3721a9f654bb6cbf2a0d8544efa1373d286", [][]item{
			{text("d/old"), text("d/sub/old"), text("e/old"), text("e/sub/old"), text("keep/me")},
			{folder("d"), file("d/.wh..wh..opq", nil), text("d/new"), text("e/new"), text("e/sub/new"), file("e/.wh..wh..opq", nil), file(".wh..wh.plnk", nil)}}, ""},
		{"extended attributes", "ccf0b9087cb7d406612a7a2eb8d8a1ff35b2cd3fb22af0b96c4519cd05403df6", [][]item{{
			text("cap").with(attrs("security.capability", "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")),
			text("user").with(attrs("user.b", "2", "user.a", "", "user."+long[:200], strings.Repeat("v", 2000))),
			file("big", noise(5000, 3)).with(attrs("user.x", strings.Repeat("v", 3000))),
			folder("dir").with(attrs("user.on", "directory")),
			text("other").with(attrs("trusted.overlay.opaque", "y", "security.selinux", "z"))}}, ""},
		{"ACLs, and attributes of every kind", "04bf4f33f521f730d2fed79d1e6e0590e9d4e03d6f1145a70cbca2c2d99e1da2", [][]item{{
			text("a").with(mode(0o674)).with(attrs("system.posix_acl_access", acl(1, 6, -1, 2, 4, 1000, 4, 4, -1, 16, 7, -1, 32, 4, -1),
				"trusted.foo", "t", "security.foo", "s", "user.x", "u")),
			folder("d").with(mode(0o750)).with(attrs("system.posix_acl_default", acl(1, 7, -1, 2, 7, 1000, 4, 5, -1, 8, 4, 5, 16, 7, -1, 32, 0, -1), "trusted.\xff", "\x00")),
			symlink("s", "a").with(attrs("trusted.on", "symlink"))}}, ""},
		{"modes of symlinks", "914cf7bf0612b950a26c2ef58d87064ed7e26c86f24d5c031154e861ea1b1414", [][]item{{
			text("a"), symlink("usual", "a"), symlink("none", "a").with(mode(0)), symlink("owner's", "a").with(mode(0o700)), symlink("sticky", "a").with(mode(0o1644))}}, "the mode of a symlink is the layer's, unpacked it is 0777"},
		{"times before 1970, with parts of a second, of directories", "c81bb7675c1682ea91fc0a81e310dfe280ca9ba3f7b8eb681a5956505071683e", [][]item{
			{folder("d").with(at(-1, 999999999)), text("d/x").with(at(-2e9, 1)), symlink("l", "x").with(at(-1, 500000000)), folder("./").with(at(7, 7))},
			{text("d/y").with(at(0, 1)), folder("e").with(at(1<<32, 5)), text("e/z").with(at(-1<<31, 0))}}, ""},
		{"modes and owners", "3f23c28601ff2c3ac168b76e865c5a9f575a7570396689624f0e66b822ac6159", [][]item{{
			folder("./").with(mode(0o751)), text("suid").with(mode(0o4755)), text("sgid").with(mode(0o2755)),
			folder("sticky").with(mode(0o1777)), text("none").with(mode(0)),
			text("big").with(func(h *tar.Header) { h.Uid, h.Gid = 1<<31, 1<<32-2 }),
			text("typebits").with(mode(0o100640))}}, ""},
		{"times", "e522722a2aa6d0173d41c041e38d214cbc5680e79cfb3850841c379906ef6aef", [][]item{{
			text("frac").with(func(h *tar.Header) { h.ModTime, h.Format = time.Unix(5, 999999999), tar.FormatPAX }),
			text("old").with(func(h *tar.Header) { h.ModTime, h.Format = time.Unix(-100, 0), tar.FormatPAX }),
			text("far").with(func(h *tar.Header) { h.ModTime, h.Format = time.Unix(1<<33, 0), tar.FormatPAX })}}, ""},
		{"symlinks", "d77900fa4828a74aa57688fbeed30fca3e95b6fb86e236e96b16855820097622", [][]item{{
			symlink("short", "x"), symlink("up", "../../../etc/passwd"), symlink("abs", "/none"), symlink("loop", "loop"),
			symlink("inline", strings.Repeat("i", 4032)), symlink("block", strings.Repeat("b", 4033)), symlink("max", strings.Repeat("m", 4095))}}, ""},
		{"devices go, FIFOs stay", "0e3105c6693c2fef6ae8f4c85a4ddd7450c0170d4f10e34a5fd71cd0881db957", [][]item{{
			{tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, nil},
			{tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o660}, nil},
			{tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o640, ModTime: stamp}, nil}}}, ""},
		{"a device in the place of a file, and of a directory", "15ae115a2da3f8863fcf2f60d12520084344cedb53ed6fd266e55002b66f05b7", [][]item{
			{text("a"), text("d/x"), text("keep")},
			{{tar.Header{Name: "a", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, nil},
				{tar.Header{Name: "d", Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o660}, nil},
				{tar.Header{Name: "none/x", Typeflag: tar.TypeChar}, nil}}}, ""},
		{"a device of several names", "2e07f8c181ef89d3cee7868517e1f5783837ba59b3da0ef9888c563110e937a2", [][]item{
			{{tar.Header{Name: "dev/a", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, nil}, link("dev/b", "dev/a"), text("c"), symlink("s", "dev"), text("e")},
			{link("c", "s/b"), link("new/d", "c"), text("dev/a"), link("f", "dev/a"), link("e", "dev/b"), text("e")}}, ""},
		{"parents: missing, and symlinks", "1908b33efa999f9b507b84d5689c34c7bd93ef127ed3316ce293f4c62dae2b4d", [][]item{
			{text("usr/lib/a"), text("usr/lib/c"), symlink("lib", "usr/lib"), symlink("lib2", "./lib")},
			{text("lib/b"), text("lib2/d"), text("x/y/z"), link("e", "lib2/c"), file("lib/.wh.a", nil)}}, ""},
		{"one kind over another", "000b4ea0d1d12032e9acdae42582d9af6e680fbf3cdff25e13699893d0f8f51a", [][]item{
			{text("d/x"), text("f"), symlink("s", "d"), text("dir/keep")},
			{text("d"), folder("f"), text("f/x"), folder("s"), folder("dir").with(mode(0o700))}}, ""},
		{"twice in one layer, and odd spellings", "9ee0141eff75db81623f69a7af5753a92ff8d9c91df4e8ca94e48ecec8baf206", [][]item{{
			text("a"), file("a", []byte("last wins")), text("./b"), text("/c"), text(".//d//e"), folder("g/")}}, ""},
		{"links, then one name gets other content", "326cfa6d3993ac0e15c00b513efad034bdb36e3a8b72e2db9d1b8e33297dfbba", [][]item{
			{text("a"), link("b", "a"), file("a", []byte("other")), link("c", "a"), link("b2", "b"), text("t"), link("a2", "a")},
			{link("t", "b"), file(".wh.a2", nil), text("a3/x")}}, ""},
		{"links to what has attributes", "94e0a32c98d8d8f2bfb2d0af12c61f7483d2015203ab025f8f3fbd81ab6f9bcc", [][]item{
			{text("a").with(mode(0o4750)).with(attrs("security.capability", cap3, "user.x", "1")), link("d/b", "a")},
			{folder("d").with(mode(0o711)), link("d/c", "d/b")}}, ""},
		{"a FIFO with two names, a link to a symlink", "2e07cfdae059d366f96bf67da2d5753551ff5addb2399ca96a1704ec4ed70098", [][]item{{
			{tar.Header{Name: "f", Typeflag: tar.TypeFifo, Mode: 0o600, ModTime: stamp}, nil}, link("g", "f"),
			symlink("s", "nowhere"), link("d/s", "s")}}, ""},
		{"attributes of a directory in three layers", "f53a51a0d94044bbf5bcef252a51a313ced135e7a865d6240cae0ae7fbaf376a", [][]item{
			{folder("d").with(mode(0o700)).with(attrs("user.a", "1")), text("d/x")},
			{folder("d").with(mode(0o750)).with(attrs("user.b", "2"))},
			{folder("d/").with(func(h *tar.Header) { h.Uid = 7 }), folder("./").with(mode(0o555))}},
			"the attributes of the last layer alone count; tar adds them up"},
		{"a tree hidden and made again", "31b0fc53758008deb9d77b35879c30409c03fa2eae3d277959e10492c2b4bf1f", [][]item{
			{text("a/b/c/d"), text("a/b/e"), symlink("a/l", "b")},
			{file("a/.wh.b", nil), text("a/b/new")},
			{file(".wh.a", nil)},
			{text("a/b/c/again"), file("a/.wh..wh..opq", nil)}}, ""},
		{"whiteouts through symlinks and of symlinks", "a4cebdbaae8510b79a8f931afc3c6c243e776842afa7831d44e95da43f7420a2", [][]item{
			{text("usr/lib/x"), text("usr/lib/y"), symlink("lib", "usr/lib"), symlink("l2", "lib")},
			{file("lib/.wh.x", nil), file(".wh.l2", nil), file("none/.wh.z", nil)}}, ""},
		{"attributes that fill more than a block", "36d8232cbe0b6b46f7b339ffab20f396b18a14175bc2acd1f45ed16e7813e953", [][]item{{
			text("a").with(attrs("user.a", strings.Repeat("a", 4000), "user.b", strings.Repeat("b", 4000))),
			folder("d").with(attrs("user.c", strings.Repeat("c", 5000))), text("d/x"), text("z")}},
			"ext4 has no room for them"},
		{"names of bytes in PAX, and the longest", "c1b26731b8eda6e3077ff5d5e3ca6ba929476fcb705926db1a2202820b58b1da", [][]item{{
			text(strings.Repeat("\xfe", 255)), symlink("s", "\xc3\x28"), text("d\x80/" + strings.Repeat("é", 127) + "x"),
			link("h\xff", strings.Repeat("\xfe", 255))}}, ""},
		{"a global header", "8571b61dc02438ca43ed34424ed54e0c57ffcd83b39f1201a6b799861b675461", [][]item{{
			{tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "0123"}}, nil},
			text("a")}}, ""},
		{"owners by name only count as numbers", "91c4cddb048199c6cfe98c08ac848df529909fb0c4a71a3b3c5fd5c406ce95ef", [][]item{{
			text("a").with(func(h *tar.Header) { h.Uname, h.Gname, h.Uid, h.Gid = "daemon", "sys", 3, 4 }),
			text("b").with(func(h *tar.Header) { h.Uname = "nobody" })}}, ""},
		{"one byte below and above what is inline", "e1e7343a192be80c583448d314e3418d952654cfe553629ea5d34b830034eb17", [][]item{{
			file("a", noise(4032-1, 1)), file("b", noise(4032, 2)), file("c", noise(4096+4032, 3)), file("d", noise(4096+4033, 4)),
			symlink("e", strings.Repeat("e", 4031)), file("f", noise(65535, 5)), file("g", noise(256<<10, 6)), file("h", noise(256<<10+1, 7))}}, ""},
		{"one file of two chunks in two directories, and zeros", "15dcaed4e86033c42203c82b09e9062c51709960576843155ca601ac92cfcc70", [][]item{{
			file("x/big", noise(300<<10, 9)), file("y/big", noise(300<<10, 9)), file("zero", make([]byte, 200<<10)), file("zero1", make([]byte, 5000))}}, ""},
	}
}

// acl is an ACL as Linux passes it, of tags, permissions and ids.
func acl(entries ...int) string {
	b := []byte{2, 0, 0, 0}
	for i := 0; i < len(entries); i += 3 {
		b = binary.LittleEndian.AppendUint16(b, uint16(entries[i]))
		b = binary.LittleEndian.AppendUint16(b, uint16(entries[i+1]))
		b = binary.LittleEndian.AppendUint32(b, uint32(entries[i+2]))
	}
	return string(b)
}

// cap3 is a file capability of revision 3: of a user namespace whose root is
// another user.
const cap3 = "\x01\x00\x00\x03\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xe8\x03\x00\x00"
