// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/kernel"
)

func (a *app) nodeLock() *cobra.Command {
	var parts partsFlags
	cmd := &cobra.Command{
		Use:   "lock",
		Short: "pin the newest packages of all boards in kernel/debian.lock",
		Long: "Resolve every Debian package that any board needs anew, fetch it, and write its version and\n" +
			"SHA-256 into the one lock file, kernel/debian.lock. Builds take what the lock says.\n\n" +
			"Exit codes: 0 written, 1 the archive could not be asked or lacks a package, 2 wrong arguments.",
		Example: "  zos node lock && git diff kernel/debian.lock",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := boards.Names()
			if err != nil {
				return err
			}
			var wanted []kernel.Wanted
			for _, n := range names {
				b, err := boards.Load(n)
				if err != nil {
					return err
				}
				wanted = append(wanted, kernel.Wanted{Arch: b.Arch, Kernels: []string{b.Kernel, b.GuestKernel}, Firmware: b.Firmware})
			}
			file := filepath.Join(parts.source, "kernel", "debian.lock")
			lock, err := kernel.Relock(cmd.Context(), filepath.Join(parts.cache, "debian"), file, wanted, a.nodeLog())
			if err != nil {
				return err
			}
			return a.print(map[string]any{"lock": file, "packages": len(lock)}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %d packages for %d boards\n", file, len(lock), len(names))
			})
		},
	}
	parts.add(cmd)
	return cmd
}
