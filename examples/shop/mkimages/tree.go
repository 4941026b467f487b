// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// entry is one file of an image.
type entry struct {
	header tar.Header
	body   []byte
}

// tree maps absolute, clean paths to files. Its tar form depends on nothing
// else: names sorted, owners by number.
type tree map[string]entry

func (t tree) dir(name string, mode int64, uid, gid int) {
	t[name] = entry{header: tar.Header{Typeflag: tar.TypeDir, Mode: mode, Uid: uid, Gid: gid}}
}

func (t tree) file(name string, mode int64, body []byte) {
	t[name] = entry{tar.Header{Typeflag: tar.TypeReg, Mode: mode}, body}
}

func (t tree) symlink(name, target string) {
	t[name] = entry{header: tar.Header{Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}}
}

// tar writes the tree; directories on the way to a file need not be in it.
func (t tree) tar() ([]byte, error) {
	all := maps.Clone(t)
	for name := range t {
		for d := path.Dir(name); d != "/"; d = path.Dir(d) {
			if _, ok := all[d]; !ok {
				all[d] = entry{header: tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}}
			}
		}
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		e := all[name]
		h := tar.Header{
			Typeflag: e.header.Typeflag, Name: strings.TrimPrefix(name, "/"), Linkname: e.header.Linkname,
			Mode: e.header.Mode & 0o7777, Uid: e.header.Uid, Gid: e.header.Gid, Size: int64(len(e.body)), Format: tar.FormatPAX,
		}
		if h.ModTime = e.header.ModTime.Truncate(time.Second); e.header.ModTime.IsZero() {
			h.ModTime = time.Unix(0, 0)
		}
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		if _, err := w.Write(e.body); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write tar: %w", err)
	}
	return out.Bytes(), nil
}
