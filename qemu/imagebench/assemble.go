// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/kernel/debian"
)

// recipe is an image: packages, with all that they depend on.
type recipe struct {
	name     string
	packages []string
}

var recipes = []recipe{
	{"static", []string{"base-files", "busybox-static"}},
	{"nginx", []string{"base-files", "nginx"}},
	{"python", []string{"base-files", "python3", "python3-numpy", "python3-requests"}},
	{"postgres", []string{"base-files", "dash", "postgresql"}},
	{"large", []string{"base-files", "golang-go", "openjdk-21-jdk-headless"}},
}

// passwd is what the installation of Debian's base-passwd makes, of which no
// package holds a copy in its place: some programs ask who they are.
const passwd = `root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
`

// made is an image as an OCI layout.
type made struct {
	Name     string `json:"name"`
	Packages int    `json:"packages"`
	Files    int    `json:"files"`
	Bytes    int64  `json:"bytes"` // of the layers, unpacked
	Wire     int64  `json:"wireBytes"`
	layout   string
	tar      string // the whole as one tar
}

// closure resolves packages and what they depend on. Names that the archive
// has no package for (virtual ones) are left out: nothing of the image is run.
func closure(ctx context.Context, archive *debian.Archive, names []string) (debian.Lock, error) {
	lock, seen := debian.Lock{}, map[string]bool{}
	for queue := slices.Clone(names); len(queue) > 0; queue = queue[1:] {
		name := queue[0]
		if seen[name] {
			continue
		}
		seen[name] = true
		p, err := archive.Resolve(ctx, name)
		if err != nil {
			if slices.Contains(names, name) || ctx.Err() != nil {
				return nil, err
			}
			continue
		}
		lock[name] = p
		fields, err := archive.Show(ctx, name)
		if err != nil {
			return nil, err
		}
		for d := range strings.SplitSeq(fields["Pre-Depends"]+","+fields["Depends"], ",") {
			first, _, _ := strings.Cut(d, "|")
			if w := strings.FieldsFunc(first, func(r rune) bool { return strings.ContainsRune(" (:\n[", r) }); len(w) > 0 {
				queue = append(queue, w[0])
			}
		}
	}
	return lock, nil
}

// fetch gets the files of packages, in the order of their names.
func fetch(ctx context.Context, cache string, names []string) ([]string, error) {
	archive, err := debian.Open(cache, kernel.Suite, "amd64", slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return nil, err
	}
	lock, err := closure(ctx, archive, names)
	if err != nil {
		return nil, err
	}
	var all []debian.Package
	for _, name := range slices.Sorted(maps.Keys(lock)) {
		all = append(all, lock[name])
	}
	if err := archive.Prefetch(ctx, all); err != nil {
		return nil, err
	}
	var files []string
	for _, p := range all {
		file, err := archive.Fetch(ctx, p)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// assemble makes an image of two layers of about as many packages each, and
// a third with one file of 1 MiB, which is what changes.
func (b *bench) assemble(ctx context.Context, cache string, r recipe) (made, error) {
	debs, err := fetch(ctx, cache, r.packages)
	if err != nil {
		return made{}, err
	}
	m := made{Name: r.name, Packages: len(debs), layout: b.path(r.name, "oci"), tar: b.path(r.name, "all.tar")}
	if err := clearAll(b.path(r.name)); err != nil {
		return made{}, err
	}
	whole, err := newTar(m.tar)
	if err != nil {
		return made{}, err
	}
	half := (len(debs) + 1) / 2
	var layers []layer
	for i, part := range [][]string{debs[:half], debs[half:]} {
		l, err := newLayer(m.layout, i)
		if err != nil {
			return made{}, err
		}
		for _, deb := range part {
			err := debian.Walk(ctx, deb, func(name string, h *tar.Header, body io.Reader) error {
				h.Name = strings.TrimPrefix(h.Name, "./")
				if h.Name == "" {
					h.Name = "./"
				}
				m.Files++
				return errors.Join(l.out.WriteHeader(h), whole.out.WriteHeader(h), copyBoth(l.out, whole.out, body))
			})
			if err != nil {
				return made{}, err
			}
		}
		if i == 1 {
			h := tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(passwd))}
			m.Files++
			if err := errors.Join(l.out.WriteHeader(&h), whole.out.WriteHeader(&h), copyBoth(l.out, whole.out, strings.NewReader(passwd))); err != nil {
				return made{}, err
			}
		}
		if err := l.close(); err != nil {
			return made{}, err
		}
		layers = append(layers, *l)
	}
	last, err := b.changing(m.layout, 2, 1, whole.out)
	if err != nil {
		return made{}, err
	}
	if err := whole.close(); err != nil {
		return made{}, err
	}
	layers = append(layers, last)
	for _, l := range layers {
		m.Bytes += l.plainSize
		m.Wire += l.wireSize
	}
	return m, writeLayout(m.layout, layers)
}

func copyBoth(a, b io.Writer, r io.Reader) error {
	_, err := io.Copy(io.MultiWriter(a, b), r)
	return err
}

// changing makes the layer with the file that differs between versions.
func (b *bench) changing(dir string, n int, version byte, also *tar.Writer) (layer, error) {
	l, err := newLayer(dir, n)
	if err != nil {
		return layer{}, err
	}
	content := make([]byte, 1<<20)
	if _, err := rand.NewChaCha8([32]byte{version}).Read(content); err != nil {
		return layer{}, err
	}
	h := &tar.Header{Name: "opt/app/data", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}
	for _, w := range []*tar.Writer{l.out, also} {
		if w == nil {
			continue
		}
		if err := w.WriteHeader(h); err != nil {
			return layer{}, err
		}
		if _, err := w.Write(content); err != nil {
			return layer{}, err
		}
	}
	err = l.close()
	return *l, err
}

// layer is a tar that is being written: plain, or packed and hashed.
type layer struct {
	out         *tar.Writer
	file        *os.File
	zip         *gzip.Writer
	plain, wire hash.Hash
	diff, id    string // hex
	plainSize   int64
	wireSize    int64
	dir         string
}

func newTar(name string) (*layer, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	return &layer{file: f, out: tar.NewWriter(f)}, nil
}

func newLayer(dir string, n int) (*layer, error) {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(blobs, fmt.Sprint("layer-", n)))
	if err != nil {
		return nil, err
	}
	l := &layer{file: f, plain: sha256.New(), wire: sha256.New(), dir: blobs}
	l.zip = gzip.NewWriter(io.MultiWriter(f, l.wire))
	l.out = tar.NewWriter(io.MultiWriter(l.zip, l.plain, counter{&l.plainSize}))
	return l, nil
}

type counter struct{ n *int64 }

func (c counter) Write(b []byte) (int, error) { *c.n += int64(len(b)); return len(b), nil }

func (l *layer) close() error {
	err := l.out.Close()
	if l.zip != nil {
		err = errors.Join(err, l.zip.Close())
	}
	info, statErr := l.file.Stat()
	if err = errors.Join(err, statErr, l.file.Close()); err != nil {
		return err
	}
	l.wireSize = info.Size()
	if l.zip == nil {
		return nil
	}
	l.diff, l.id = hex.EncodeToString(l.plain.Sum(nil)), hex.EncodeToString(l.wire.Sum(nil))
	return os.Rename(l.file.Name(), filepath.Join(l.dir, l.id))
}

// known is a layer that lies in the layout already.
func known(digest, diff string, size int64) layer {
	return layer{id: strings.TrimPrefix(digest, "sha256:"), diff: strings.TrimPrefix(diff, "sha256:"), wireSize: size}
}

// writeLayout writes configuration, manifest and index of an OCI layout.
func writeLayout(dir string, layers []layer) error {
	put := func(v any, mediaType string) (map[string]any, error) {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(b)
		name := hex.EncodeToString(sum[:])
		return map[string]any{"mediaType": mediaType, "digest": "sha256:" + name, "size": len(b)},
			os.WriteFile(filepath.Join(dir, "blobs", "sha256", name), b, 0o644)
	}
	diffs, list := []string{}, []any{}
	for _, l := range layers {
		diffs = append(diffs, "sha256:"+l.diff)
		list = append(list, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
			"digest": "sha256:" + l.id, "size": l.wireSize})
	}
	const base = "application/vnd.oci.image."
	cfg, err := put(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs}}, base+"config.v1+json")
	if err != nil {
		return err
	}
	man, err := put(map[string]any{"schemaVersion": 2, "mediaType": base + "manifest.v1+json", "config": cfg, "layers": list}, base+"manifest.v1+json")
	if err != nil {
		return err
	}
	man["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "latest"}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{man}})
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644),
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}
