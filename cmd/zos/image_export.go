// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/verity"
)

// exported is the result of zos image export.
type exported struct {
	ID         string `json:"id"`
	File       string `json:"file"`
	VerityRoot string `json:"verityRoot"`
	DataSize   int64  `json:"dataSize"` // bytes of EROFS; the hash tree begins behind them
	DiskSize   int64  `json:"diskSize"`
	// Checks are commands of others that check the file, a list of words each.
	Checks [][]string `json:"checks"`
}

func (a *app) imageExport() *cobra.Command {
	var store, out string
	cmd := &cobra.Command{
		Use:   "export ID --store DIR|URL -o FILE",
		Short: "write a Zero-Image as one file, for the tools of others",
		Long: `Write the disk of a Zero-Image into one file: an EROFS file system, and behind it
its dm-verity tree without a superblock, as a guest has it. It was checked up to the
verity root before it gets its name. What is shown are the commands with which
veritysetup, erofs-utils and the kernel judge it, none of which is of zos.

Exit codes: 0 written, 1 failed, 3 a chunk or the root is not what it should be, or FILE is
no regular file, 4 not there, 5 no answer.`,
		Example: `  zos image export sha256:0123… --store build/store -o disk.img
  zos image export sha256:0123… --store http://127.0.0.1:8480 -o disk.img --json`,
		Args: exactly(1, "one image id"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := checkID(args[0]); err != nil {
				return err
			}
			if err := regularOrAbsent(out, "what was exported before, or nothing"); err != nil {
				return err
			}
			from, ctx, err := openImages(cmd.Context(), store)
			if err != nil {
				return imageError(err)
			}
			f, err := renameio.NewPendingFile(out, renameio.WithPermissions(0o644))
			if err != nil {
				return fileError(fmt.Errorf("export: %w", err))
			}
			defer func() { err = errors.Join(err, f.Cleanup()) }()
			m, err := from.export(ctx, args[0], f.File, a.bytesDone("export "+args[0]))
			if err != nil {
				return imageError(err)
			}
			if err := f.CloseAtomicallyReplace(); err != nil {
				return fileError(fmt.Errorf("export: %w", err))
			}
			r := exported{args[0], out, m.Verity.Root, m.DataSize, m.DiskSize, judges(out, m)}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "file         %s, %s\nverity root  %s\ndata         %d bytes, the hash tree behind them\n", r.File, size(r.DiskSize), r.VerityRoot, r.DataSize)
				for _, argv := range r.Checks {
					fmt.Fprintf(w, "check        %s\n", strings.Join(argv, " "))
				}
			})
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write")
	storeFlag(cmd, &store, "folder of the store, or URL of a mirror")
	required(cmd, "store", "output")
	return cmd
}

// judges are commands that check a disk in a file; docs/images.md shows the same.
func judges(file string, m zimage.Manifest) [][]string {
	return [][]string{
		{"veritysetup", "verify", file, file, m.Verity.Root, "--no-superblock", "--format=1", "--hash=sha256", "--salt=-",
			fmt.Sprintf("--data-block-size=%d", verity.BlockSize), fmt.Sprintf("--hash-block-size=%d", verity.BlockSize),
			fmt.Sprintf("--data-blocks=%d", m.DataSize/verity.BlockSize), fmt.Sprintf("--hash-offset=%d", m.DataSize)},
		{"fsck.erofs", file},
		{"mount", "-t", "erofs", "-o", "ro,loop", file, "/mnt"},
	}
}
