// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// few is an image of files of random sizes and contents that do not compress, 20
// folders of them, of which one thing changes.
type few struct {
	what        string
	files       int
	least, most int64  // bytes of a file
	more        string // a file of 30 bytes that comes, or
	changed     int    // the number of a file that has other bytes, from 1
}

var fews = []few{
	{"2000 files of 2 to 20 kB, a file more, early", 2000, 2000, 20_000, "usr/lib/d00/a", 0},
	{"2000 files of 2 to 20 kB, a file more, last", 2000, 2000, 20_000, "usr/lib/d19/z", 0},
	{"2000 files of 2 to 20 kB, other bytes in one", 2000, 2000, 20_000, "", 1000},
	{"200 files of 66 to 200 kB, a file more, early", 200, 66_000, 200_000, "usr/lib/d00/a", 0},
	{"200 files of 66 to 200 kB, other bytes in one", 200, 66_000, 200_000, "", 100},
}

// sharing measures what is sent when little changes in images of small files.
func (b *bench) sharing(ctx context.Context) error {
	fmt.Println("== sharing")
	for _, f := range fews {
		if err := b.fresh(); err != nil {
			return err
		}
		before, after := b.path("work", "before"), b.path("work", "after")
		was := f
		was.more, was.changed = "", 0
		if err := errors.Join(was.write(before), f.write(after)); err != nil {
			return err
		}
		_, sent, err := b.publish(ctx, before, after)
		if err != nil {
			return err
		}
		b.add(row{What: "bytes sent: " + f.what, Than: "all of it", Ours: sent[1], Theirs: sent[0], Ratio: float64(sent[1]) / float64(max(sent[0], 1)), Goal: reported, Holds: true})
	}
	return b.fresh()
}

// write writes the image as an OCI layout.
func (f few) write(dir string) error {
	l, err := newLayer(dir, 0)
	if err != nil {
		return err
	}
	put := func(name string, content []byte) error {
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}
		if err := l.out.WriteHeader(h); err != nil {
			return err
		}
		_, err := l.out.Write(content)
		return err
	}
	if f.more != "" {
		if err := put(f.more, []byte(strings.Repeat("thirty\n", 5)[:30])); err != nil {
			return err
		}
	}
	for i := range f.files {
		seed := [32]byte{7}
		binary.BigEndian.PutUint32(seed[1:], uint32(i))
		size := f.least + int64(rand.New(rand.NewChaCha8(seed)).Int64N(f.most-f.least))
		if i+1 == f.changed {
			seed[0]++
		}
		content := make([]byte, size)
		if _, err := rand.NewChaCha8(seed).Read(content); err != nil {
			return err
		}
		if err := put(fmt.Sprintf("usr/lib/d%02d/file-%04d", i*20/f.files, i), content); err != nil {
			return err
		}
	}
	if err := l.close(); err != nil {
		return err
	}
	return writeLayout(dir, []layer{*l})
}

// publish converts and publishes images, one after the other, to one mirror, and
// gives their ids and what was sent of each.
func (b *bench) publish(ctx context.Context, layouts ...string) (ids []string, sent []int64, err error) {
	store, mirror := b.path("work", "store"), b.path("work", "mirror")
	if err := os.MkdirAll(filepath.Dir(mirror), 0o755); err != nil {
		return nil, nil, err
	}
	for _, layout := range layouts {
		p, err := run(ctx, b.zos, "image", "convert", "oci:"+layout, "--store", store, "--json")
		if err != nil {
			return nil, nil, err
		}
		var made struct{ ID string }
		if err := json.Unmarshal(p.out, &made); err != nil {
			return nil, nil, err
		}
		if p, err = run(ctx, b.zos, "image", "publish", made.ID, "--store", store, "--to", mirror, "--json"); err != nil {
			return nil, nil, err
		}
		var r struct{ Total struct{ SentBytes int64 } }
		if err := json.Unmarshal(p.out, &r); err != nil {
			return nil, nil, err
		}
		ids, sent = append(ids, made.ID), append(sent, r.Total.SentBytes)
	}
	return ids, sent, nil
}
