// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/image"
)

func (a *app) nodeInspect() *cobra.Command {
	var spdx string
	cmd := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "list what is in a node image, check it, and predict its measurement",
		Long: "Take an image apart (a UKI, a disk image or a disk, an ISO): every file with its SHA-256 and\n" +
			"the package that it comes from, compared with the list inside the image, and what a TPM's\n" +
			"register 11 will hold after this image has booted.\n\n" +
			"Exit codes: 0 all as listed, 1 the file cannot be read, 2 wrong arguments, 3 no node image, or\n" +
			"its files are not those of its list, 4 no such file.",
		Example: "  zos node inspect build/images/pc-x86_64/node.iso\n  zos node inspect --spdx node.spdx.json /dev/sdb",
		Args:    exactly(1, "the image to look into"),
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := image.Open(args[0])
			switch {
			case errors.Is(err, os.ErrNotExist):
				return coded(exitNotFound, err)
			case errors.Is(err, image.ErrMedium):
				return coded(exitRefused, err)
			case err != nil:
				return err
			}
			r, err := image.Inspect(m)
			if err != nil {
				return coded(exitRefused, err)
			}
			if spdx != "" {
				b, err := r.SPDX()
				if err != nil {
					return err
				}
				if err := os.WriteFile(spdx, b, 0o644); err != nil {
					return err
				}
			}
			if err := a.print(r, func(w io.Writer) { printReport(w, r) }); err != nil {
				return err
			}
			if len(r.Problems) > 0 {
				return coded(exitRefused, fmt.Errorf("%s is not what its list says: %s", args[0], strings.Join(r.Problems, "; ")))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&spdx, "spdx", "", "also write an SPDX 2.3 document (JSON) to this file")
	return cmd
}

func printReport(w io.Writer, r *image.Report) {
	for _, p := range r.Parts {
		fmt.Fprintf(w, "%s %9d  %-60s %s %s\n", p.SHA256, p.Size, harmless(p.Path), harmless(p.Origin.Name), harmless(p.Origin.Version))
	}
	fmt.Fprintf(w, "kind      %s\nkernel    %s\ncmdline   %s\nUKI       %s, %d bytes\nPCR 11    %s\n", r.Kind, harmless(r.Kernel), harmless(r.Cmdline), r.UKI.Digest, r.UKI.Size, r.PCR11)
	fmt.Fprintf(w, "signed    %v\nenrols    %s\nseeded    %v\nfiles     %d, %d problems\n", r.Signed, strings.Join(r.Enrols, " "), r.Seeded, len(r.Parts), len(r.Problems))
}
