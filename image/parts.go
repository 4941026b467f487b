// SPDX-License-Identifier: Apache-2.0

package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/zos-node/zos/image/secureboot"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/kernel/debian"
)

// partsPath is the list of everything in an image, inside it.
const partsPath = "/etc/zos/parts.json"

// Names of parts that are no files of the initramfs.
const (
	partKernel = "uki:.linux"
	partStub   = "uki:stub" // the code of systemd's stub: its section .text
	partLoader = "esp:loader"
)

// Origin is who made a file: a package, or a program of somebody's.
type Origin struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"` // of the package's file; "": ours, built from source
}

// FromDebian is a package as the lock names it.
func FromDebian(p debian.Package) Origin { return Origin{p.Name, p.Version, p.SHA256} }

// Part is one file of an image.
type Part struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // of the content; of the loader its Authenticode digest, which a signature leaves as it is
	Origin Origin `json:"origin"`
}

func part(path string, content []byte, o Origin) Part {
	sum := sha256.Sum256(content)
	return Part{path, int64(len(content)), hex.EncodeToString(sum[:]), o}
}

// outside lists the parts around the initramfs.
func outside(k *kernel.Linux, efi *kernel.EFI) ([]Part, error) {
	code, err := stubCode(efi.Stub)
	if err != nil {
		return nil, err
	}
	loader, err := loaderPart(efi.Loader, FromDebian(efi.Package))
	if err != nil {
		return nil, err
	}
	return []Part{part(partKernel, k.Image, FromDebian(k.Package)), part(partStub, code, FromDebian(efi.Package)), loader}, nil
}

func loaderPart(loader []byte, o Origin) (Part, error) {
	d, err := secureboot.Digest(loader)
	if err != nil {
		return Part{}, fmt.Errorf("systemd-boot: %w", err)
	}
	// Its size is left out: a signature changes it.
	return Part{Path: partLoader, SHA256: hex.EncodeToString(d[:]), Origin: o}, nil
}

func encodeParts(parts []Part) ([]byte, error) {
	parts = slices.Clone(parts)
	slices.SortFunc(parts, func(a, b Part) int { return strings.Compare(a.Path, b.Path) })
	b, err := json.MarshalIndent(parts, "", " ")
	return append(b, '\n'), err
}
