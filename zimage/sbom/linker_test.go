// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// elfFile is a file with what the dynamic linker looks at, and nothing else.
type elfFile struct {
	machine        uint16 // 62 without
	interp         string
	needed         []string
	rpath, runpath string
}

func (e elfFile) String() string {
	if e.machine == 0 {
		e.machine = 62
	}
	const headers, base = 64 + 3*56, 0x1000
	names, dynamic := []byte{0}, []byte{}
	le := binary.LittleEndian
	entry := func(tag, value uint64) { dynamic = le.AppendUint64(le.AppendUint64(dynamic, tag), value) }
	text := func(tag uint64, s string) {
		if s != "" {
			entry(tag, uint64(len(names)))
			names = append(append(names, s...), 0)
		}
	}
	for _, n := range e.needed {
		text(dtNeeded, n)
	}
	text(dtRpath, e.rpath)
	text(dtRunpath, e.runpath)
	at := uint64(headers)
	entry(dtStrtab, base+at)
	entry(0, 0)
	interp := append([]byte(e.interp), 0)

	h := make([]byte, 64)
	copy(h, "\x7fELF\x02\x01\x01")
	le.PutUint16(h[16:], 3)
	le.PutUint16(h[18:], e.machine)
	le.PutUint64(h[32:], 64)
	le.PutUint16(h[54:], 56)
	le.PutUint16(h[56:], 3)
	segment := func(kind uint32, off, addr, size uint64) {
		p := make([]byte, 56)
		le.PutUint32(p, kind)
		le.PutUint64(p[8:], off)
		le.PutUint64(p[16:], addr)
		le.PutUint64(p[32:], size)
		h = append(h, p...)
	}
	total := at + uint64(len(names)+len(dynamic)+len(interp))
	segment(ptLoad, 0, base, total)
	segment(ptDynamic, at+uint64(len(names)), base+at+uint64(len(names)), uint64(len(dynamic)))
	if e.interp == "" {
		segment(0, 0, 0, 0)
	} else {
		segment(ptInterp, at+uint64(len(names)+len(dynamic)), 0, uint64(len(interp)))
	}
	return string(bytes.Join([][]byte{h, names, dynamic, interp}, nil))
}

func TestSearch(t *testing.T) {
	loader := elfFile{}.String()
	lib := elfFile{}.String()
	exe := func(e elfFile) string { e.interp = "/lib/ld.so"; return e.String() }
	for _, c := range []struct {
		name    string
		files   map[string]string
		links   []string
		missing []string
	}{
		{"default folders", map[string]string{"x:bin/a": exe(elfFile{needed: []string{"l.so", "m.so"}}), "usr/lib/l.so": lib, "usr/lib/x86_64-linux-gnu/m.so": lib},
			[]string{"/lib/ld.so", "/usr/lib/l.so", "/usr/lib/x86_64-linux-gnu/m.so"}, nil},
		{"of another machine", map[string]string{"x:bin/a": exe(elfFile{needed: []string{"l.so"}}), "lib/l.so": elfFile{machine: 183}.String()},
			[]string{"/lib/ld.so"}, []string{"l.so"}},
		{"no ELF", map[string]string{"x:bin/a": exe(elfFile{needed: []string{"l.so"}}), "lib/l.so": "/* GNU ld script */ INPUT(x) and more text to be long enough to be an ELF file"},
			[]string{"/lib/ld.so"}, []string{"l.so"}},
		{"beside itself", map[string]string{"x:opt/bin/a": exe(elfFile{needed: []string{"l.so"}, runpath: "$ORIGIN/../lib:/none"}), "opt/lib/l.so": lib},
			[]string{"/lib/ld.so", "/opt/lib/l.so"}, nil},
		{"an RPATH holds for libraries too", map[string]string{"x:bin/a": exe(elfFile{needed: []string{"l.so"}, rpath: "/p"}), "p/l.so": elfFile{needed: []string{"m.so"}}.String(), "p/m.so": lib},
			[]string{"/lib/ld.so", "/p/l.so", "/p/m.so"}, nil},
		{"a RUNPATH does not", map[string]string{"x:bin/a": exe(elfFile{needed: []string{"l.so"}, runpath: "/p"}), "p/l.so": elfFile{needed: []string{"m.so"}}.String(), "p/m.so": lib},
			[]string{"/lib/ld.so", "/p/l.so"}, []string{"m.so"}},
		{"ld.so.conf", map[string]string{"x:bin/a": exe(elfFile{needed: []string{"l.so", "m.so"}}), "etc/ld.so.conf": "# x\ninclude /etc/ld.so.conf.d/*.conf\n/q\n",
			"etc/ld.so.conf.d/a.conf": "/p # y\n", "etc/ld.so.conf.d/b": "/no\n", "p/l.so": lib, "q/m.so": lib, "no/l.so": lib},
			[]string{"/lib/ld.so", "/p/l.so", "/q/m.so"}, nil},
		{"through a symlink", map[string]string{"x:bin/a": exe(elfFile{needed: []string{"l.so.1"}}), "usr/lib/l.so.1@": "l.so.1.2", "usr/lib/l.so.1.2": lib},
			[]string{"/lib/ld.so", "/usr/lib/l.so.1.2"}, nil},
		{"by its path", map[string]string{"x:bin/a": exe(elfFile{needed: []string{"/p/l.so", "/p/none.so"}}), "p/l.so": lib},
			[]string{"/lib/ld.so", "/p/l.so"}, []string{"/p/none.so"}},
		{"no executable", map[string]string{"bin/a": exe(elfFile{needed: []string{"l.so"}})}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.files["lib/ld.so"] = loader
			got := collected(t, treeOf(t, c.files))
			var links, missing []string
			for _, to := range got.Links {
				links = append(links, to...)
			}
			for _, m := range got.Missing {
				missing = append(missing, m.Needs)
			}
			slices.Sort(links)
			if fmt.Sprint(links) != fmt.Sprint(c.links) || fmt.Sprint(missing) != fmt.Sprint(c.missing) {
				t.Errorf("links %v, missing %v; want %v and %v", links, missing, c.links, c.missing)
			}
		})
	}
	c := collected(t, treeOf(t, map[string]string{"x:bin/a": exe(elfFile{})}))
	if len(c.Missing) != 1 || c.Missing[0].Needs != "/lib/ld.so" {
		t.Errorf("without its loader: %v", c.Missing)
	}
}
