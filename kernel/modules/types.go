// SPDX-License-Identifier: Apache-2.0

package modules

import (
	"bytes"
	"debug/elf"
	"fmt"
)

// btf is the section with a module's types for BPF (Linux's
// Documentation/bpf/btf.rst). The kernel finds it by its name.
const btf = ".BTF"

// hidden is what the section is called when it is not to be found.
const hidden = ".btf"

// WithoutTypes returns a module whose types for BPF the kernel does not find. It
// would read and check each of them at every load, which is a large part of
// what a small module costs; a kernel in which nobody uses BPF has no need of
// them. Only the section's name changes, so the module stays as long as it was
// and loads as it did. A signature does not outlive that: see kmod.Unsigned.
func WithoutTypes(ko []byte) ([]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return nil, fmt.Errorf("module: %w", err)
	}
	if f.Section(btf) == nil {
		return ko, nil
	}
	names := f.Section(".shstrtab")
	if names == nil || names.Offset+names.Size > uint64(len(ko)) {
		return nil, fmt.Errorf("module: no names of its sections")
	}
	out := bytes.Clone(ko)
	table := out[names.Offset:][:names.Size]
	// A name is the end of a string that ends with a zero, and another section's
	// name may share it (.rela.BTF); all that are called so are hidden together.
	from, to := append([]byte(btf), 0), append([]byte(hidden), 0)
	copy(table, bytes.ReplaceAll(table, from, to))
	return out, nil
}
