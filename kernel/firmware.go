// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/zos-node/zos/kernel/debian"
)

// FirmwareFile is one file that a driver loads into its hardware.
type FirmwareFile struct {
	Path    string // below lib/firmware, as the driver asks for it
	Data    []byte
	Package debian.Package
}

// Firmware takes the files that drivers ask for out of Debian's firmware
// packages. What no package has is not in the result: drivers name revisions
// that were never published, and their hardware says so on the console.
func (s *Source) Firmware(ctx context.Context, packages, wanted []string) ([]FirmwareFile, error) {
	need := map[string]bool{}
	for _, w := range wanted {
		need[w] = true
	}
	found := map[string]FirmwareFile{}
	for _, name := range packages {
		p, file, err := s.Package(ctx, name, nil)
		if err != nil {
			return nil, fmt.Errorf("firmware: %w", err)
		}
		have, links := map[string][]byte{}, map[string]string{}
		err = debian.Walk(ctx, file, func(name string, hdr *tar.Header, r io.Reader) error {
			_, below, ok := strings.Cut(name, "/lib/firmware/")
			if !ok {
				return nil
			}
			switch hdr.Typeflag {
			case tar.TypeReg:
				b, err := io.ReadAll(r)
				have[below] = b
				return err
			case tar.TypeSymlink:
				links[below] = path.Join(path.Dir(below), hdr.Linkname)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("firmware: %w", err)
		}
		for w := range need {
			at := w
			for range 4 { // a link may lead to a link
				to, ok := links[at]
				if !ok {
					break
				}
				at = to
			}
			if b, ok := have[at]; ok {
				found[w] = FirmwareFile{Path: w, Data: b, Package: p}
			}
		}
	}
	var out []FirmwareFile
	for _, f := range found {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b FirmwareFile) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}
