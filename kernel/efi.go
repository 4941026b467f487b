// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"

	"github.com/zos-node/zos/kernel/debian"
)

// EFI is what systemd has for the firmware's side of a boot.
type EFI struct {
	Package debian.Package
	Stub    []byte // first part of a UKI
	Loader  []byte // systemd-boot
}

// EFI fetches both programs for the architecture of this source.
func (s *Source) EFI(ctx context.Context) (*EFI, error) {
	p, file, err := s.Package(ctx, "systemd-boot-efi", nil)
	if err != nil {
		return nil, fmt.Errorf("UEFI programs: %w", err)
	}
	suffix := map[string]string{"amd64": "x64", "arm64": "aa64"}[s.opt.Arch]
	e := &EFI{Package: p}
	want := map[string]*[]byte{"linux" + suffix + ".efi.stub": &e.Stub, "systemd-boot" + suffix + ".efi": &e.Loader}
	err = debian.Walk(ctx, file, func(name string, _ *tar.Header, r io.Reader) error {
		to, ok := want[path.Base(name)]
		if !ok || path.Dir(name) != "/usr/lib/systemd/boot/efi" {
			return nil
		}
		delete(want, path.Base(name))
		var err error
		*to, err = io.ReadAll(r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("UEFI programs: %w", err)
	}
	for name := range want {
		return nil, fmt.Errorf("UEFI programs: package %s %s has no %s", p.Name, p.Version, name)
	}
	return e, nil
}
