// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/zos-node/zos/zimage"
)

// ErrRef means a reference that names no image by content.
var ErrRef = errors.New("image reference refused")

// OpenSource opens a reference in one of the forms above. For a registry
// nothing is contacted yet.
func OpenSource(ref string) (zimage.Source, error) {
	if dir, ok := strings.CutPrefix(ref, "oci:"); ok {
		return openLayout(dir)
	}
	if file, ok := strings.CutPrefix(ref, "docker-archive:"); ok {
		return openArchive(file)
	}
	digest, err := name.NewDigest(ref)
	if err != nil {
		if form := local(ref); form != "" {
			return nil, fmt.Errorf("%w: %q is on this machine: want %s%s", ErrRef, ref, form, ref)
		}
		if _, tagErr := name.ParseReference(ref); tagErr == nil {
			return nil, fmt.Errorf("%w: %q is a tag, want NAME@sha256:<64 hex>", ErrRef, ref)
		}
		return nil, fmt.Errorf("%w: %q: want oci:DIR, docker-archive:FILE or NAME@sha256:<64 hex>: %w", ErrRef, ref, err)
	}
	return &source{pick: func(ctx context.Context, p v1.Platform) (v1.Image, error) { return pull(ctx, digest, p) }}, nil
}

// local is the form for what lies on this machine: a file, or a folder with a
// layout; "" for anything else.
func local(ref string) string {
	info, err := os.Stat(ref)
	switch {
	case err != nil:
	case info.Mode().IsRegular():
		return "docker-archive:"
	case info.IsDir():
		if _, err := os.Stat(filepath.Join(ref, "index.json")); err == nil {
			return "oci:"
		}
	}
	return ""
}

// Resolve gives the digest of the image manifest that a reference stands for
// on a platform. It is the one place where a registry's tag may be used.
func Resolve(ctx context.Context, ref, platform string) (digest string, err error) {
	src, err := OpenSource(ref)
	if errors.Is(err, ErrRef) && local(ref) == "" {
		tag, tagErr := name.NewTag(ref)
		if tagErr != nil {
			return "", err
		}
		src, err = &source{pick: func(ctx context.Context, p v1.Platform) (v1.Image, error) { return pull(ctx, tag, p) }}, nil
	}
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	raw, err := src.Manifest(ctx, platform)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

func pull(ctx context.Context, ref name.Reference, p v1.Platform) (v1.Image, error) {
	d, err := remote.Get(ref, remote.WithContext(ctx), remote.WithPlatform(p), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	img, err := d.Image()
	if err != nil {
		return nil, fmt.Errorf("registry: %s for %s: %w", ref, p, err)
	}
	return img, nil
}

// source is an image in a layout or a registry.
type source struct {
	pick func(context.Context, v1.Platform) (v1.Image, error)
	img  v1.Image
	dir  layout.Path // where the blobs lie in files; empty of a registry
}

func (s *source) Close() error { return nil }

// Manifest chooses the image; Blob then reads from it.
func (s *source) Manifest(ctx context.Context, platform string) ([]byte, error) {
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		return nil, fmt.Errorf("platform %q: %w", platform, err)
	}
	if s.img, err = s.pick(ctx, *p); err != nil {
		return nil, err
	}
	raw, err := s.img.RawManifest()
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return raw, nil
}

func (s *source) Blob(_ context.Context, digest string) (io.ReadCloser, error) {
	if s.img == nil {
		return nil, errors.New("no manifest was read yet")
	}
	h, err := v1.NewHash(digest)
	if err != nil {
		return nil, fmt.Errorf("digest %q: %w", digest, err)
	}
	m, err := s.img.Manifest()
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if m.Config.Digest == h {
		b, err := s.img.RawConfigFile()
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	layer, err := s.img.LayerByDigest(h)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", digest, err)
	}
	rc, err := layer.Compressed()
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", digest, err)
	}
	return rc, nil
}

// File implements zimage.Filer.
func (s *source) File(digest string) (zimage.File, error) {
	if s.dir == "" {
		return nil, nil
	}
	h, err := v1.NewHash(digest)
	if err != nil {
		return nil, fmt.Errorf("digest %q: %w", digest, err)
	}
	rc, err := s.dir.Blob(h)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", digest, err)
	}
	in, ok := rc.(*os.File)
	if !ok {
		return nil, rc.Close()
	}
	info, err := in.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("layer %s: %w", digest, err), in.Close())
	}
	return openFile(in, 0, info.Size(), true)
}

// openLayout opens DIR or DIR@sha256:….
func openLayout(ref string) (zimage.Source, error) {
	dir, want := ref, v1.Hash{}
	if i := strings.LastIndex(ref, "@sha256:"); i >= 0 {
		h, err := v1.NewHash(ref[i+1:])
		if err != nil {
			return nil, fmt.Errorf("%w: oci:%s: %w", ErrRef, ref, err)
		}
		dir, want = ref[:i], h
	}
	path, err := layout.FromPath(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noLayout(dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open OCI layout: %w", malformed(err))
	}
	top, err := path.ImageIndex()
	if err != nil {
		return nil, fmt.Errorf("open OCI layout %s: %w", dir, malformed(err))
	}
	return &source{dir: path, pick: func(_ context.Context, p v1.Platform) (v1.Image, error) {
		found, err := images(top, want, p, 0)
		if err != nil {
			return nil, fmt.Errorf("OCI layout %s: %w", dir, err)
		}
		switch len(found) {
		case 1:
			return found[0], nil
		case 0:
			return nil, noImage(dir, top, want, p)
		}
		var digests []string
		for _, img := range found[:min(len(found), maxNamed)] {
			d, err := img.Digest()
			if err != nil {
				return nil, fmt.Errorf("OCI layout %s: %w", dir, err)
			}
			digests = append(digests, d.String())
		}
		if len(found) > maxNamed {
			digests = append(digests, "…")
		}
		return nil, fmt.Errorf("%w: OCI layout %s has %d images for %s: name one with oci:%s@DIGEST; they are %s", ErrRef, dir, len(found), p, dir, strings.Join(digests, ", "))
	}}, nil
}

// noImage says what there is in a layout instead of what was asked for.
func noImage(dir string, top v1.ImageIndex, want v1.Hash, p v1.Platform) error {
	asked := "image"
	if want != (v1.Hash{}) {
		asked += " " + want.String()
	}
	have, err := listed(top, 0)
	if err != nil {
		return fmt.Errorf("OCI layout %s: %w", dir, err)
	}
	if len(have) == 0 {
		return fmt.Errorf("OCI layout %s has no %s for %s, and no other: %w", dir, asked, p, fs.ErrNotExist)
	}
	if len(have) > maxNamed {
		have = append(have[:maxNamed], "…")
	}
	return fmt.Errorf("OCI layout %s has no %s for %s, it has %s: %w", dir, asked, p, strings.Join(have, ", "), fs.ErrNotExist)
}

// listed names the images of an index and the indexes in it, with their platforms.
func listed(ix v1.ImageIndex, depth int) (out []string, err error) {
	m, err := ix.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("read index: %w", malformed(err))
	}
	for _, d := range m.Manifests {
		switch {
		case d.MediaType.IsIndex() && depth < maxNesting:
			sub, err := ix.ImageIndex(d.Digest)
			if err != nil {
				return nil, fmt.Errorf("read index %s: %w", d.Digest, err)
			}
			inner, err := listed(sub, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, inner...)
		case d.MediaType.IsImage() && d.Platform != nil:
			out = append(out, fmt.Sprintf("%s for %s", d.Digest, d.Platform))
		case d.MediaType.IsImage():
			out = append(out, d.Digest.String())
		}
	}
	return out, nil
}

const (
	maxNamed = 16 // digests in a message
	// refName is the annotation in which a layout has what others call a tag.
	refName = "org.opencontainers.image.ref.name"
)

// noLayout says what to do about a folder that is no layout. Other tools take
// oci:DIR:TAG, and a tag may be another image tomorrow.
func noLayout(dir string, cause error) error {
	i := strings.LastIndexByte(dir, ':')
	if i < 0 || strings.ContainsRune(dir[i:], '/') {
		return fmt.Errorf("open OCI layout: there is none in %s: %w; want a folder with index.json and blobs, as `skopeo copy … oci:DIR:latest` makes one", dir, cause)
	}
	path, err := layout.FromPath(dir[:i])
	if err != nil {
		return fmt.Errorf("open OCI layout: there is none in %s: %w", dir, cause)
	}
	tag, named := dir[i+1:], "oci:DIR@sha256:…"
	if top, err := path.ImageIndex(); err == nil {
		if m, err := top.IndexManifest(); err == nil {
			for _, d := range m.Manifests {
				if d.Annotations[refName] == tag {
					named = fmt.Sprintf("oci:%s@%s, which %q is today", dir[:i], d.Digest, tag)
				}
			}
		}
	}
	return fmt.Errorf("%w: oci:%s names a tag, which may be another image tomorrow; want oci:%s, or %s", ErrRef, dir, dir[:i], named)
}

// malformed makes what is not the JSON that it should be a reference that is
// refused.
func malformed(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &kind) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrRef, err)
	}
	return err
}

const maxNesting = 4

// images collects the images for a platform from an index and the indexes in
// it. With a digest only that manifest, or what is in that index, counts.
func images(ix v1.ImageIndex, want v1.Hash, p v1.Platform, depth int) ([]v1.Image, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("%w: indexes are nested deeper than %d", ErrRef, maxNesting)
	}
	m, err := ix.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("read index: %w", malformed(err))
	}
	var out []v1.Image
	for _, d := range m.Manifests {
		named := want == v1.Hash{} || d.Digest == want
		switch {
		case d.MediaType.IsIndex():
			inner := want
			if named {
				inner = v1.Hash{}
			}
			sub, err := ix.ImageIndex(d.Digest)
			if err != nil {
				return nil, fmt.Errorf("read index %s: %w", d.Digest, err)
			}
			found, err := images(sub, inner, p, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
		case d.MediaType.IsImage() && named && (d.Platform == nil || d.Platform.OS == p.OS && d.Platform.Architecture == p.Architecture):
			img, err := ix.Image(d.Digest)
			if err != nil {
				return nil, fmt.Errorf("read manifest %s: %w", d.Digest, err)
			}
			out = append(out, img)
		}
	}
	return out, nil
}
