// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/zos-node/zos/zimage/flat"
)

// Source is a place where an OCI image lies; package oci opens them. Convert
// believes nothing that a Source says: it hashes the manifest, the
// configuration, every layer, and every layer unpacked.
type Source interface {
	// Manifest gives the bytes of the image manifest for a platform.
	Manifest(ctx context.Context, platform string) ([]byte, error)
	// Blob opens what the manifest names by digest.
	Blob(ctx context.Context, digest string) (io.ReadCloser, error)
	Close() error
}

// ErrSource means an OCI image that contradicts itself.
var ErrSource = errors.New("OCI image refused")

const (
	maxOCIManifest = 4 << 20
	maxOCIConfig   = 8 << 20
	maxLayers      = 512
	// maxWindow bounds what a zstd layer may ask of our memory, which the tree
	// needs too. Tools that make images stay at 8 MiB; zstd --ultra and --long
	// ask for up to 128.
	maxWindow = 32 << 20
)

type descriptor struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// ociManifest and ociConfig are the parts of OCI's documents that an image
// is made of. Others wrote these formats: unknown fields are theirs to add.
type ociManifest struct {
	Config descriptor   `json:"config"`
	Layers []descriptor `json:"layers"`
}

type ociConfig struct {
	Created      string `json:"created"`
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	RootFS       struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	Config struct {
		User       string
		Env        []string
		Entrypoint []string
		Cmd        []string
		WorkingDir string
		StopSignal string
	} `json:"config"`
}

// open reads and checks the two documents.
func openImage(ctx context.Context, src Source, platform string) (OCI, ociManifest, ociConfig, error) {
	var man ociManifest
	var cfg ociConfig
	fail := func(err error) (OCI, ociManifest, ociConfig, error) { return OCI{}, man, cfg, err }
	if err := checkPlatform(platform); err != nil {
		return fail(err)
	}
	raw, err := src.Manifest(ctx, platform)
	if err != nil {
		return fail(fmt.Errorf("OCI manifest: %w", err))
	}
	if len(raw) > maxOCIManifest {
		return fail(fmt.Errorf("%w: manifest of %d bytes", ErrSource, len(raw)))
	}
	if err := json.Unmarshal(raw, &man); err != nil {
		return fail(fmt.Errorf("%w: manifest: %w", ErrSource, err))
	}
	if !isDigest(man.Config.Digest) || len(man.Layers) > maxLayers {
		return fail(fmt.Errorf("%w: manifest has no sha256 configuration, or more than %d layers", ErrSource, maxLayers))
	}
	if man.Config.Size < 0 || man.Config.Size > maxOCIConfig {
		return fail(fmt.Errorf("%w: configuration of %d bytes", ErrSource, man.Config.Size))
	}
	var buf bytes.Buffer
	if err := readBlob(ctx, src, man.Config, nil, func(r io.Reader) error {
		_, err := buf.ReadFrom(r)
		return err
	}); err != nil {
		return fail(fmt.Errorf("OCI configuration: %w", err))
	}
	if err := json.Unmarshal(buf.Bytes(), &cfg); err != nil {
		return fail(fmt.Errorf("%w: configuration: %w", ErrSource, err))
	}
	if got := cfg.OS + "/" + cfg.Architecture; got != platform {
		return fail(fmt.Errorf("%w: it is for %q, want %q", ErrSource, got, platform))
	}
	if len(cfg.RootFS.DiffIDs) != len(man.Layers) {
		return fail(fmt.Errorf("%w: %d layers, %d diff ids", ErrSource, len(man.Layers), len(cfg.RootFS.DiffIDs)))
	}
	return OCI{digestOf(raw), platform, man.Config.Digest}, man, cfg, nil
}

// readBlob passes a blob to use, and then makes sure that all of it was read
// and that it has the size and the hash of its descriptor.
func readBlob(ctx context.Context, src Source, d descriptor, read func(n int), use func(io.Reader) error) (err error) {
	if !isDigest(d.Digest) || d.Size < 0 {
		return fmt.Errorf("%w: descriptor %q of %d bytes", ErrSource, d.Digest, d.Size)
	}
	rc, err := src.Blob(ctx, d.Digest)
	if err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	in := &meter{r: io.LimitReader(rc, d.Size+1), h: sha256.New(), ctx: ctx, read: read}
	useErr := use(in)
	// A wrong blob is the better explanation of whatever use found wrong in it.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	if got := in.sum(); in.n != d.Size || got != d.Digest {
		return fmt.Errorf("blob %s of %d bytes: %w: %d bytes hash to %s", d.Digest, d.Size, ErrMismatch, in.n, got)
	}
	return useErr
}

// readLayer passes an unpacked layer to use and checks blob and diff id. What
// fails in here is the layer's fault: readBlob tells a source that cannot be
// read from it.
// left is how much all further layers may unpack to.
func readLayer(ctx context.Context, src Source, d descriptor, diffID string, left *int64, read func(n int), use func(io.Reader) error) error {
	return readBlob(ctx, src, d, read, func(r io.Reader) (err error) {
		plain, done, err := unpack(r)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		early := newAhead(io.LimitReader(plain, *left+1))
		defer early.stop()
		in := &meter{r: early, h: sha256.New(), ctx: ctx}
		useErr := use(in)
		if _, err := io.Copy(io.Discard, in); errors.Is(err, zstd.ErrWindowSizeExceeded) {
			return fmt.Errorf("%w: unpack layer: %w: more than %d MiB; pack the layer again without --ultra or --long", ErrSource, err, maxWindow>>20)
		} else if err != nil {
			return errors.Join(useErr, fmt.Errorf("%w: unpack layer: %w", ErrSource, err))
		}
		if *left -= in.n; *left < 0 {
			return fmt.Errorf("%w: layers unpack to more than is allowed: %d bytes in all, or %d and %d times what they weigh",
				ErrSource, flat.DefaultLimits().Bytes+tarOverhead, freeBytes, maxRatio)
		}
		if useErr != nil {
			return useErr
		}
		if got := in.sum(); got != diffID {
			return fmt.Errorf("%w: unpacked, it hashes to %s, want diff id %s", ErrMismatch, got, diffID)
		}
		return nil
	})
}

// unpack tells the compression by its first bytes: media types are often
// wrong, and the diff id proves the outcome.
func unpack(r io.Reader) (io.Reader, func() error, error) {
	none := func() error { return nil }
	b := bufio.NewReaderSize(r, 256<<10)
	magic, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("read layer: %w", err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: unpack layer: %w", ErrSource, err)
		}
		return z, z.Close, nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, fmt.Errorf("%w: unpack layer: %w", ErrSource, err)
		}
		return z, func() error { z.Close(); return nil }, nil
	}
	return b, none, nil
}

// meter is a reader that counts, hashes, and stops when its context ends. An error
// stays: a read that fails once is not mended by the next, which would have other bytes.
type meter struct {
	r    io.Reader
	h    hash.Hash
	n    int64
	ctx  context.Context
	read func(n int)
	err  error
}

func (m *meter) Read(b []byte) (int, error) {
	if m.err == nil {
		m.err = m.ctx.Err()
	}
	if m.err != nil {
		return 0, m.err
	}
	n, err := m.r.Read(b)
	m.err = err
	m.h.Write(b[:n]) // a hash takes everything
	m.n += int64(n)
	if m.read != nil {
		m.read(n)
	}
	return n, err
}

func (m *meter) sum() string { return "sha256:" + hex.EncodeToString(m.h.Sum(nil)) }
