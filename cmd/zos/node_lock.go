// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/kernel"
)

func (a *app) nodeLock() *cobra.Command {
	var parts partsFlags
	var hypervisor string
	cmd := &cobra.Command{
		Use:   "lock",
		Short: "pin in kernel/debian.lock what builds download",
		Long: "Resolve every Debian package that any board needs anew, fetch it, and write its version and\n" +
			"SHA-256 into the one lock file, kernel/debian.lock; what only tests need stands there as well.\n" +
			"Cloud Hypervisor's release is fetched for every architecture and held against its pin;\n" +
			"--hypervisor goes to another version. A release that cannot be reached keeps its pin, and\n" +
			"that is said. Builds take what the lock says.\n\n" +
			"Exit codes: 0 written, 1 the archive could not be asked or lacks a package, a release has\n" +
			"changed under its version, or --hypervisor's could not be had, 2 wrong arguments, 4 --source is not\n" +
			"zos's own source.",
		Example: "  zos node lock && git diff kernel/debian.lock\n  zos node lock --hypervisor v54.0",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if hypervisor != "" && !hypervisorVersion.MatchString(hypervisor) {
				return coded(exitUsage, fmt.Errorf("--hypervisor %q: want a version of Cloud Hypervisor, such as v54.0", hypervisor))
			}
			// A lock is made from the one before it: without it, the pins would be lost.
			if err := parts.look(); err != nil {
				return err
			}
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
			file := filepath.Join(parts.source, lockPath)
			old, err := kernel.ReadLock(file)
			if err != nil {
				return err
			}
			checked, err := kernel.CheckReleases(cmd.Context(), old.Releases, hypervisor)
			if err != nil {
				return err
			}
			lock, err := kernel.Relock(cmd.Context(), filepath.Join(parts.cache, "debian"), file, wanted, kernel.Releases(checked), a.nodeLog())
			if err != nil {
				return err
			}
			return a.print(map[string]any{"lock": file, "packages": len(lock.Packages), "releases": checked}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %d packages for %d boards\n", file, len(lock.Packages), len(names))
				for _, c := range checked {
					fmt.Fprintln(w, released(c))
				}
			})
		},
	}
	parts.add(cmd)
	cmd.Flags().StringVar(&hypervisor, "hypervisor", "", "version of Cloud Hypervisor to go to, such as v54.0")
	return cmd
}

// hypervisorVersion is how Cloud Hypervisor numbers its releases.
var hypervisorVersion = regexp.MustCompile(`^v[0-9]+\.[0-9]+(\.[0-9]+)?$`)

// released says what came of a release's file.
func released(c kernel.Checked) string {
	what := fmt.Sprintf("%s %s for %s", c.Name, c.Version, c.Arch)
	switch {
	case c.Unreached != "":
		return what + " was NOT CHECKED, its pin stands as it stood: " + harmless(c.Unreached)
	case c.Was != c.Version:
		return fmt.Sprintf("%s in place of %s, sha256 %s", what, c.Was, c.SHA256)
	}
	return what + " is what its pin says"
}
