// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/kernel/kmod"
	"github.com/zos-node/zos/kernel/modules"
)

// Guest is the guest's initramfs, uncompressed: it is small, and the guest
// boots faster when nothing has to be unpacked. init is the guest program.
//
// The modules come without the distributor's signatures. What vouches for them
// is the initramfs's digest in the signed spec, which the node has checked; the
// guest's kernel would check an RSA signature per module on top, which is two
// thirds of the time that loading them takes. Of the rest a quarter went into
// types for BPF, which no guest uses.
func Guest(k *kernel.Linux, init []byte) ([]byte, []modules.Module, error) {
	t := NewTree()
	for _, d := range []string{"proc", "sys", "run", "root", "tmp"} {
		t.Dir(d, 0o755)
	}
	t.File("init", 0o755, init)
	var chosen []modules.Module
	stages := modules.GuestStages()
	for i, stage := range stages {
		all, err := k.Tree.Choose(stages[:i+1]...)
		if err != nil {
			return nil, nil, fmt.Errorf("guest initramfs: %w", err)
		}
		for j, m := range all[len(chosen):] {
			// Loaded in the order of their names.
			lean, err := modules.WithoutTypes(kmod.Unsigned(m.Data))
			if err != nil {
				return nil, nil, fmt.Errorf("guest initramfs: %s: %w", m.Name, err)
			}
			t.File(fmt.Sprintf("modules/%s/%03d-%s.ko", stage.Name, len(chosen)+j, m.Name), 0o644, lean)
		}
		chosen = all
	}
	b, err := t.CPIO()
	return b, chosen, err
}

// BuildGuest makes only the guests' kernel and initramfs, in dir.
func BuildGuest(ctx context.Context, board boards.Board, parts *kernel.Source, source, dir string) (map[string]Item, error) {
	k, err := parts.Linux(ctx, board.GuestKernel)
	if err != nil {
		return nil, err
	}
	init, err := Program{Package: pkgGuest, Arch: board.Arch}.Build(ctx, source)
	if err != nil {
		return nil, err
	}
	files, _, err := writeGuest(k, init, dir)
	return files, err
}

func writeGuest(k *kernel.Linux, init []byte, dir string) (map[string]Item, []modules.Module, error) {
	initramfs, chosen, err := Guest(k, init)
	if err != nil {
		return nil, nil, err
	}
	files := map[string]Item{"vmlinuz": item(k.Image), "initramfs.cpio": item(initramfs)}
	err = errors.Join(writeFile(filepath.Join(dir, "vmlinuz"), k.Image), writeFile(filepath.Join(dir, "initramfs.cpio"), initramfs))
	return files, chosen, err
}
