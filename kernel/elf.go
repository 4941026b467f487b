// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"debug/elf"
	"fmt"
)

// static says that b is a program for an architecture that needs no loader.
func static(b []byte, arch string) bool {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil || f.Machine != map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch] {
		return false
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

// needs returns the loader and the shared libraries that an ELF file names.
func needs(b []byte) (interp string, libs []string, err error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return "", nil, fmt.Errorf("read ELF: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, p.Filesz)
		if _, err := p.ReadAt(name, 0); err != nil {
			return "", nil, fmt.Errorf("read ELF: %w", err)
		}
		interp = string(bytes.TrimRight(name, "\x00"))
	}
	if libs, err = f.ImportedLibraries(); err != nil {
		return "", nil, fmt.Errorf("read ELF: %w", err)
	}
	return interp, libs, nil
}
