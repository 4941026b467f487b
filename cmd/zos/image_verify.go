// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/zimage"
)

func (a *app) imageVerify() *cobra.Command {
	var store, ref string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "verify ID --store DIR|URL",
		Short: "check every chunk and the verity root of a Zero-Image",
		Long: `Check a Zero-Image in a store or on a mirror: the manifest against the id, every
chunk against its hash, and the verity root, made anew from the data. With
--oci the OCI image is converted once more, and must give the same id: that
shows that the image is what its publisher says it is.

Exit codes: 0 all is as it should be, 1 it could not be checked, as on a full disk,
3 it is not, 4 not there, 5 no answer, or not all was verified within --timeout.`,
		Example: `  zos image verify sha256:0123… --store build/store
  zos image verify sha256:0123… --store http://127.0.0.1:8480 --oci oci:build/oci/web`,
		Args: exactly(1, "one image id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkID(args[0]); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			from, reading, err := openImages(ctx, store)
			if err != nil {
				return imageError(err)
			}
			m, err := from.verify(reading, args[0], a.bytesDone("verify "+args[0]))
			if err == nil && ref != "" {
				err = a.convertAgain(ctx, ref, args[0], m)
			}
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
				return coded(exitUnreachable, fmt.Errorf("%s was not verified in %v; --timeout gives it longer", args[0], timeout))
			}
			if err != nil {
				return imageError(err)
			}
			r := map[string]any{"id": args[0], "verityRoot": m.Verity.Root, "diskSize": m.DiskSize, "chunks": len(m.Chunks), "reconverted": ref != ""}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "good: %s\n%d chunks, %s, verity root %s\n", args[0], len(m.Chunks), size(m.DiskSize), m.Verity.Root)
				if ref != "" {
					fmt.Fprintf(w, "converted again from %s: the same id\n", ref)
				}
			})
		},
	}
	cmd.Flags().StringVar(&ref, "oci", "", "convert this OCI reference again and compare")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "give up after")
	storeFlag(cmd, &store, "folder of the store, or URL of a mirror")
	return cmd
}

// convertAgain derives the image once more and keeps nothing of it.
func (a *app) convertAgain(ctx context.Context, ref, id string, m zimage.Manifest) error {
	if m.Format != zimage.Format {
		return fmt.Errorf("%s has format %d, this program makes format %d: %w; verify it with the release of zos that made it, or convert %s anew",
			id, m.Format, zimage.Format, zimage.ErrMismatch, ref)
	}
	again, err := convertRef(ctx, zimage.Converter{Progress: a.bytesDone("convert " + ref)}, ref, m.OCI.Platform)
	if err != nil {
		return err
	}
	if again.ID != id {
		return coded(exitRefused, fmt.Errorf("%s was not made of %s, which converts to %s; they differ in: %s",
			id, ref, again.ID, strings.Join(differ(again.Manifest, m), ", ")))
	}
	return nil
}

// differ names what two manifests of one format and platform do not have in common.
func differ(a, b zimage.Manifest) (what []string) {
	for _, part := range []struct {
		name string
		same bool
	}{
		{"OCI manifest", a.OCI.Manifest == b.OCI.Manifest},
		{"OCI configuration", a.OCI.Config == b.OCI.Config},
		{"process", reflect.DeepEqual(a.Config, b.Config)},
		{"verity root", a.Verity.Root == b.Verity.Root},
		{"size", a.DataSize == b.DataSize && a.DiskSize == b.DiskSize},
		{"chunks", slices.Equal(a.Chunks, b.Chunks)},
		{"SPDX document", a.SBOM == b.SBOM},
	} {
		if !part.same {
			what = append(what, part.name)
		}
	}
	return what
}
