// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"

	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/kernel/modules"
)

// Guest is the guest's initramfs, uncompressed: it is small, and the guest
// boots faster when nothing has to be unpacked. init is the guest program.
func Guest(k *kernel.Linux, init []byte) ([]byte, []modules.Module, error) {
	chosen, err := k.Tree.Choose(modules.GuestSet())
	if err != nil {
		return nil, nil, fmt.Errorf("guest initramfs: %w", err)
	}
	t := NewTree()
	for _, d := range []string{"proc", "sys", "run", "root", "tmp"} {
		t.Dir(d, 0o755)
	}
	t.File("init", 0o755, init)
	for i, m := range chosen {
		// Loaded in the order of their names.
		t.File(fmt.Sprintf("modules/%03d-%s.ko", i, m.Name), 0o644, m.Data)
	}
	b, err := t.CPIO()
	return b, chosen, err
}
