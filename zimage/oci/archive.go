// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/zos-node/zos/zimage"
)

// archive is what `docker save` wrote. Such an archive has no OCI manifest,
// or has one for other (compressed) layers than it holds, so one is made from
// what is in it: the layers byte for byte as they lie there.
type archive struct {
	file     *os.File
	manifest []byte
	blobs    map[string]*io.SectionReader // digest -> bytes in the file
}

const (
	maxArchiveJSON = 8 << 20
	maxEntries     = 4096
	maxLinks       = 8
)

// ociDescriptor and ociManifest fix the bytes of the manifest that is made.
type ociDescriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

type ociManifest struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	Config        ociDescriptor   `json:"config"`
	Layers        []ociDescriptor `json:"layers"`
}

func openArchive(name string) (src zimage.Source, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("archive %s: %w", name, errors.Join(err, f.Close()))
		}
	}()
	entries, err := index(f)
	if err != nil {
		return nil, err
	}
	list, err := readJSON(entries, "manifest.json")
	if err != nil {
		return nil, err
	}
	var images []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(list, &images); err != nil {
		return nil, fmt.Errorf("%w: manifest.json: %w", ErrRef, err)
	}
	if len(images) != 1 {
		return nil, fmt.Errorf("%w: it has %d images, want one", ErrRef, len(images))
	}
	a := &archive{file: f, blobs: map[string]*io.SectionReader{}}
	m := ociManifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.manifest.v1+json", Layers: []ociDescriptor{}}
	if m.Config, err = a.add(entries, images[0].Config, "application/vnd.oci.image.config.v1+json"); err != nil {
		return nil, err
	}
	for _, layer := range images[0].Layers {
		d, err := a.add(entries, layer, "application/vnd.oci.image.layer.v1.tar")
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, d)
	}
	if a.manifest, err = json.Marshal(m); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return a, nil
}

// index finds where in the archive each file's bytes are. Older archives hold
// a layer that stands in two places once, and a symlink.
func index(f *os.File) (map[string]*io.SectionReader, error) {
	entries, links := map[string]*io.SectionReader{}, map[string]string{}
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: this is no tar (a compressed archive must be unpacked first): %w", ErrRef, err)
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // names lead to bytes of the archive only
			return nil, fmt.Errorf("read tar: %w", err)
		}
		if len(entries)+len(links) >= maxEntries {
			return nil, fmt.Errorf("%w: more than %d files", ErrRef, maxEntries)
		}
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := f.Seek(0, io.SeekCurrent) // the tar reader reads no further than the header
			if err != nil {
				return nil, fmt.Errorf("read tar: %w", err)
			}
			entries[path.Clean(h.Name)] = io.NewSectionReader(f, at, h.Size)
		case tar.TypeSymlink:
			links[path.Clean(h.Name)] = path.Join(path.Dir(h.Name), h.Linkname)
		case tar.TypeLink:
			links[path.Clean(h.Name)] = path.Clean(h.Linkname)
		}
	}
	for from, to := range links {
		for range maxLinks {
			if next, ok := links[to]; ok {
				to = next
			}
		}
		if e := entries[to]; e != nil {
			entries[from] = e
		}
	}
	return entries, nil
}

func find(entries map[string]*io.SectionReader, name string) (*io.SectionReader, error) {
	if e := entries[path.Clean(name)]; e != nil {
		return io.NewSectionReader(e.Outer()), nil
	}
	return nil, fmt.Errorf("%w: it holds no file %q; docker save makes one that does", ErrRef, name)
}

func readJSON(entries map[string]*io.SectionReader, name string) ([]byte, error) {
	e, err := find(entries, name)
	if err != nil {
		return nil, err
	}
	if e.Size() > maxArchiveJSON {
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrRef, name, e.Size())
	}
	b, err := io.ReadAll(e)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// add hashes a file of the archive and makes it a blob.
func (a *archive) add(entries map[string]*io.SectionReader, name, mediaType string) (ociDescriptor, error) {
	e, err := find(entries, name)
	if err != nil {
		return ociDescriptor{}, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, e); err != nil {
		return ociDescriptor{}, fmt.Errorf("read %s: %w", name, err)
	}
	d := ociDescriptor{mediaType, "sha256:" + hex.EncodeToString(h.Sum(nil)), e.Size()}
	a.blobs[d.Digest] = e
	return d, nil
}

// Manifest gives the one manifest; Convert holds the platform against the
// image's configuration.
func (a *archive) Manifest(context.Context, string) ([]byte, error) { return a.manifest, nil }

func (a *archive) Blob(_ context.Context, digest string) (io.ReadCloser, error) {
	e := a.blobs[digest]
	if e == nil {
		return nil, fmt.Errorf("%s: %w", digest, fs.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(e, 0, e.Size())), nil
}

// File implements zimage.Filer.
func (a *archive) File(digest string) (zimage.File, error) {
	e := a.blobs[digest]
	if e == nil {
		return nil, fmt.Errorf("%s: %w", digest, fs.ErrNotExist)
	}
	_, off, size := e.Outer()
	return openFile(a.file, off, size, false)
}

func (a *archive) Close() error {
	if err := a.file.Close(); err != nil {
		return fmt.Errorf("close archive: %w", err)
	}
	return nil
}
