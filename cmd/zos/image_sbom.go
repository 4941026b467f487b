// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func (a *app) imageSBOM() *cobra.Command {
	var store, platform string
	cmd := &cobra.Command{
		Use:   "sbom REF|ID --store DIR|URL",
		Short: "print what is inside a Zero-Image, as an SPDX document",
		Long: `Print the SPDX 2.3 document of a Zero-Image, byte for byte as its digest in the
image's manifest has it: packages, and which shared objects each program loads.
What is missing, and which package databases were not read, stand in it as
annotations. The output is the same with and without --json.`,
		Example: `  zos image sbom sha256:0123… --store build/store
  zos image sbom oci:build/oci/web --store http://127.0.0.1:8480 >web.spdx.json`,
		Args: exactly(1, "one image id or image reference"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkPlatformOf(cmd, platform, args[0]); err != nil {
				return err
			}
			from, ctx, err := openImages(cmd.Context(), store)
			if err != nil {
				return imageError(err)
			}
			id, err := from.find(ctx, args[0], platform)
			if err != nil {
				return imageError(err)
			}
			m, err := from.manifest(ctx, id)
			if err != nil {
				return imageError(err)
			}
			b, err := from.sbom(ctx, m)
			if err != nil {
				return imageError(err)
			}
			if _, err := io.WriteString(a.out, string(b)); err != nil {
				return coded(exitFailed, fmt.Errorf("write: %w", err))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&platform, "platform", "linux/amd64", "of a REF: linux/amd64 or linux/arm64")
	storeFlag(cmd, &store, "folder of the store, or URL of a mirror")
	return cmd
}
