// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/zos-node/zos/spec/strict"
	"github.com/zos-node/zos/zimage/verity"
)

const (
	// MaxChunk is the largest chunk.
	MaxChunk = 256 << 10
	// MaxDisk is the largest disk.
	MaxDisk = 64 << 30
	// MaxManifest is the largest manifest.
	MaxManifest = 32 << 20
	// MaxBlob is the largest kernel or initramfs.
	MaxBlob = 1 << 30
)

// ErrManifest means a manifest that no Convert makes.
var ErrManifest = errors.New("manifest refused")

// Encode writes the manifest in its one form, whose SHA-256 is the image id.
func (m Manifest) Encode() ([]byte, error) {
	b, err := strict.Encode(m)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return b, nil
}

// id is the image id. A manifest that no node would accept has none.
func (m Manifest) id() (string, error) {
	b, err := m.Encode()
	if err != nil {
		return "", err
	}
	if _, err := DecodeManifest(b); err != nil {
		return "", err
	}
	return digestOf(b), nil
}

// DecodeManifest reads a manifest and checks all that can be checked without
// the disk. Another way to write the same manifest is refused too: there is
// one image id per image.
func DecodeManifest(b []byte) (Manifest, error) {
	var m Manifest
	if err := strict.Decode(b, &m, MaxManifest); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if err := m.validate(); err != nil {
		return Manifest{}, err
	}
	again, err := m.Encode()
	if err != nil {
		return Manifest{}, err
	}
	if !bytes.Equal(again, b) {
		return Manifest{}, fmt.Errorf("%w: not in canonical form", ErrManifest)
	}
	return m, nil
}

func (m Manifest) validate() error {
	refuse := func(field, format string, args ...any) error {
		return fmt.Errorf("%w: %w", ErrManifest, strict.Errorf(field, format, args...))
	}
	tree := verity.TreeSize(m.DataSize)
	switch {
	case m.Format < OldestFormat || m.Format > Format:
		return refuse("format", "is %d, this program knows %d to %d", m.Format, OldestFormat, Format)
	case !isDigest(m.OCI.Manifest):
		return refuse("oci.manifest", "is not sha256:<64 hex>")
	case !isDigest(m.OCI.Config):
		return refuse("oci.config", "is not sha256:<64 hex>")
	case !isDigest(m.SBOM):
		return refuse("sbom", "is not sha256:<64 hex>")
	case checkPlatform(m.OCI.Platform) != nil:
		return refuse("oci.platform", "is %q, want linux/amd64 or linux/arm64", m.OCI.Platform)
	case m.DataSize <= 0 || m.DataSize%verity.BlockSize != 0 || m.DataSize > MaxDisk:
		return refuse("dataSize", "is %d, not a multiple of 4096 in 4096..%d", m.DataSize, int64(MaxDisk))
	case m.DiskSize != m.DataSize+tree:
		return refuse("diskSize", "is %d, data and tree have %d", m.DiskSize, m.DataSize+tree)
	case m.Verity.HashStart != m.DataSize/verity.BlockSize:
		return refuse("verity.hashStart", "is %d, want %d", m.Verity.HashStart, m.DataSize/verity.BlockSize)
	case !isHex(m.Verity.Root):
		return refuse("verity.root", "is not 64 hex digits")
	}
	var at int64
	for i, c := range m.Chunks {
		field := strict.Index("chunks", i)
		switch {
		case !isHex(c.ID):
			return refuse(field+".id", "is not 64 hex digits")
		case c.Off != at:
			return refuse(field+".off", "is %d, the chunk before ends at %d", c.Off, at)
		case c.Size <= 0 || c.Size > MaxChunk || c.Size%verity.BlockSize != 0:
			return refuse(field+".size", "is %d, not a multiple of 4096 in 4096..%d", c.Size, MaxChunk)
		case at < m.DataSize && at+c.Size > m.DataSize:
			return refuse(field+".size", "is %d: a chunk holds data or tree, not both", c.Size)
		}
		at += c.Size
	}
	if at != m.DiskSize {
		return refuse("chunks", "cover %d of %d bytes", at, m.DiskSize)
	}
	return nil
}

// digestOf is the digest of bytes in the form that specs use.
func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func isHex(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

func isDigest(s string) bool {
	h, ok := strings.CutPrefix(s, "sha256:")
	return ok && isHex(h)
}

// hexOf gives the hex digits of a digest.
func hexOf(digest string) (string, error) {
	if !isDigest(digest) {
		return "", fmt.Errorf("%q is not sha256:<64 hex>", digest)
	}
	return strings.TrimPrefix(digest, "sha256:"), nil
}

func checkPlatform(p string) error {
	if p != "linux/amd64" && p != "linux/arm64" {
		return fmt.Errorf("platform %q: want linux/amd64 or linux/arm64", p)
	}
	return nil
}
