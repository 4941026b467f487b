// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/image"
)

func (a *app) nodeInspect() *cobra.Command {
	var spdx, only string
	cmd := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "list what is in a node image, check it, and predict its measurement",
		Long: "Take an image apart (a UKI, a disk image or a disk, an ISO): every file with its SHA-256 and\n" +
			"the package that it comes from, compared with the list inside the image, and what a TPM's\n" +
			"register 11 will hold after this image has booted. The disk of a node that was updated holds two\n" +
			"images; both are shown (with --json as a list), or the one that --image names.\n\n" +
			"Exit codes: 0 all as listed, 1 the file cannot be read, 2 wrong arguments, 3 no node image, or\n" +
			"its files are not those of its list, 4 no such file.",
		Example: "  zos node inspect build/images/pc-x86_64/node.iso\n  zos node inspect --image zos-1.4.0.efi /dev/sda\n  zos node inspect --spdx node.spdx.json /dev/sdb",
		Args:    exactly(1, "the image to look into"),
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := image.OpenAll(args[0])
			switch {
			case errors.Is(err, os.ErrNotExist):
				return coded(exitNotFound, err)
			case errors.Is(err, image.ErrMedium):
				return coded(exitRefused, err)
			case err != nil:
				return err
			}
			reports, err := image.InspectAll(all)
			if err != nil {
				return coded(exitRefused, fmt.Errorf("%s: %w", args[0], err))
			}
			if only != "" {
				reports = slices.DeleteFunc(reports, func(r *image.Report) bool { return path.Base(r.Path) != only })
				if len(reports) == 0 {
					return coded(exitNotFound, fmt.Errorf("%s has no image %s: %s", args[0], only, strings.Join(paths(all), ", ")))
				}
			}
			return a.inspected(args[0], reports, spdx)
		},
	}
	cmd.Flags().StringVar(&spdx, "spdx", "", "also write an SPDX 2.3 document (JSON) to this file")
	cmd.Flags().StringVar(&only, "image", "", "of several images on a disk, the one with this file name")
	return cmd
}

func paths(all []*image.Medium) []string {
	var out []string
	for _, m := range all {
		out = append(out, m.Path)
	}
	return out
}

// inspected prints what was found, one image or several.
func (a *app) inspected(name string, reports []*image.Report, spdx string) error {
	if spdx != "" {
		if len(reports) > 1 {
			return coded(exitUsage, fmt.Errorf("%s holds %d images, and an SPDX document is about one: name it with --image", name, len(reports)))
		}
		b, err := reports[0].SPDX()
		if err != nil {
			return err
		}
		if err := os.WriteFile(spdx, b, 0o644); err != nil {
			return err
		}
	}
	var shown any = reports[0]
	if len(reports) > 1 {
		shown = reports
	}
	err := a.print(shown, func(w io.Writer) {
		for i, r := range reports {
			if i > 0 {
				fmt.Fprintln(w)
			}
			printReport(w, r)
		}
	})
	if err != nil {
		return err
	}
	var problems []string
	for _, r := range reports {
		problems = append(problems, r.Problems...)
	}
	if len(problems) > 0 {
		return coded(exitRefused, fmt.Errorf("%s is not what its list says: %s", name, strings.Join(problems, "; ")))
	}
	return nil
}

func printReport(w io.Writer, r *image.Report) {
	for _, p := range slices.Concat(r.Parts, r.Beside) {
		fmt.Fprintf(w, "%s %9d  %-60s %s %s\n", p.SHA256, p.Size, harmless(p.Path), harmless(p.Origin.Name), harmless(p.Origin.Version))
	}
	if r.Path != "" {
		fmt.Fprintf(w, "image     %s\n", harmless(r.Path))
	}
	fmt.Fprintf(w, "kind      %s\nkernel    %s\ncmdline   %s\nUKI       %s, %d bytes\nPCR 11    %s\n", r.Kind, harmless(r.Kernel), harmless(r.Cmdline), r.UKI.Digest, r.UKI.Size, r.PCR11)
	fmt.Fprintf(w, "signed    %v\nenrols    %s\nseeded    %v\nfiles     %d, %d problems\n", r.Signed, strings.Join(r.Enrols, " "), r.Seeded, len(r.Parts), len(r.Problems))
}
