// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/agent/imaged/trace"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
)

// inspected is the result of zos image inspect.
type inspected struct {
	ID       string          `json:"id"`
	Manifest zimage.Manifest `json:"manifest"`
	Unique   amount          `json:"unique"` // chunks that are not the same as another one of the image
	Shared   []sharedWith    `json:"shared"`
	Map      *zimage.Map     `json:"map,omitempty"` // with --oci
	Start    *started        `json:"start,omitempty"`
}

// started is what the last recorded start of the image read.
type started struct {
	trace.Start
	Chunks []int    `json:"chunks"` // of which it read something, in the order of the first reads
	Bytes  int64    `json:"bytes"`  // that it read
	Files  []string `json:"files"`  // in the chunks that it read from, in the order of their first reads; with --oci
}

type amount struct {
	Chunks int   `json:"chunks"`
	Bytes  int64 `json:"bytes"`
}

type sharedWith struct {
	ID string `json:"id"`
	amount
}

// largest is how many files are shown to people.
const largest = 10

func (a *app) imageInspect() *cobra.Command {
	var store, platform, layers string
	var with []string
	var f ledgerFlags
	cmd := &cobra.Command{
		Use:   "inspect REF|ID --store DIR|URL",
		Short: "show what a Zero-Image is made of",
		Long: `Show the manifest of a Zero-Image by its id, or by the OCI reference that it was
converted from, and how much of it is the same as other images (--with). With
--oci the layers are read again, to show which files each has brought, and in
which chunks they lie. With --ledger and --root the newest start is shown that a
node has recorded of the image: which blocks its guest read before it was
healthy, of which chunks, and with --oci, of which files. With --json that is everything, file by
file and chunk by chunk.`,
		Example: `  zos image inspect oci:build/oci/web --store build/store
  zos image inspect sha256:0123… --store build/store --with sha256:4567… --oci oci:build/oci/web
  zos image inspect oci:build/oci/web --store build/store --ledger https://ledger.example --root root.json`,
		Args: exactly(1, "one image id or image reference"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkPlatformOf(cmd, platform, append([]string{args[0]}, with...)...); err != nil {
				return err
			}
			for _, flag := range []string{"root", "state"} {
				if cmd.Flags().Changed(flag) && !cmd.Flags().Changed("ledger") {
					return coded(exitUsage, fmt.Errorf("--%s is of a ledger, and none is asked without --ledger; give --ledger too", flag))
				}
			}
			from, ctx, err := openImages(cmd.Context(), store)
			if err != nil {
				return imageError(err)
			}
			r := inspected{Shared: []sharedWith{}}
			if r.ID, r.Manifest, err = from.open(ctx, args[0], platform); err != nil {
				return imageError(err)
			}
			r.Unique.Chunks, r.Unique.Bytes = zimage.Unique(r.Manifest)
			for _, ref := range with {
				other := sharedWith{}
				var m zimage.Manifest
				if other.ID, m, err = from.open(ctx, ref, platform); err != nil {
					return imageError(err)
				}
				other.Chunks, other.Bytes = zimage.Shared(r.Manifest, m)
				r.Shared = append(r.Shared, other)
			}
			if layers != "" {
				if r.Map, err = a.mapOf(ctx, layers, r.Manifest); err != nil {
					return imageError(fmt.Errorf("%s is not what %s was made of: %w", layers, r.ID, err))
				}
			}
			if cmd.Flags().Changed("ledger") {
				c, err := a.sync(ctx, f)
				if err != nil {
					return err
				}
				if r.Start = startOf(trace.Last(c.State(), r.ID, r.Manifest), r.Manifest, r.Map); r.Start == nil {
					return noStart(r.ID)
				}
			}
			return a.print(r, func(w io.Writer) { printInspected(w, r) })
		},
	}
	cmd.Flags().StringVar(&platform, "platform", "linux/amd64", "of a REF: linux/amd64 or linux/arm64")
	cmd.Flags().StringVar(&layers, "oci", "", "read the layers of this OCI reference again, to show files and their chunks")
	cmd.Flags().StringArrayVar(&with, "with", nil, "another image: show what both have (may be given more than once)")
	storeFlag(cmd, &store, "folder of the store, or URL of a mirror")
	f.add(cmd)
	ledger := cmd.Flags().Lookup("ledger") // what is in the environment asks none: most looks at an image need no ledger
	ledger.Usage, ledger.DefValue = "URL or folder of a ledger, to show the newest start; none is trusted, and none is asked without this", "[]"
	return cmd
}

// startOf adds to a trace what it means in the image.
func startOf(s *trace.Start, m zimage.Manifest, files *zimage.Map) *started {
	if s == nil {
		return nil
	}
	out := &started{Start: *s, Chunks: m.ChunksOf(s.Blocks), Bytes: s.Blocks.Blocks() * extent.BlockSize, Files: []string{}}
	seen := map[string]bool{}
	for _, c := range out.Chunks {
		if files == nil {
			break
		}
		for _, f := range files.Files {
			if slices.Contains(f.Chunks, c) && !seen[f.Path] {
				seen[f.Path] = true
				out.Files = append(out.Files, f.Path)
			}
		}
	}
	return out
}

// open finds an image and reads its manifest.
func (i *images) open(ctx context.Context, ref, platform string) (string, zimage.Manifest, error) {
	id, err := i.find(ctx, ref, platform)
	if err != nil {
		return "", zimage.Manifest{}, err
	}
	m, err := i.manifest(ctx, id)
	return id, m, err
}

func (a *app) mapOf(ctx context.Context, ref string, m zimage.Manifest) (out *zimage.Map, err error) {
	src, err := openSource(ref)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	got, err := zimage.MapImage(ctx, src, m, "", a.bytesDone("read "+ref))
	return &got, err
}

func printInspected(w io.Writer, r inspected) {
	printManifest(w, r.ID, r.Manifest)
	fmt.Fprintf(w, "different    %d chunks, %s\n", r.Unique.Chunks, size(r.Unique.Bytes))
	for _, s := range r.Shared {
		fmt.Fprintf(w, "shared       %d chunks, %s with %s\n", s.Chunks, size(s.Bytes), s.ID)
	}
	if s := r.Start; s != nil {
		fmt.Fprintf(w, "a start read %s, of %d chunks: machine %s of deployment %s, claim %d\n", size(s.Bytes), len(s.Chunks), harmless(s.Machine), harmless(s.Deployment), s.Claim)
		for _, p := range s.Files[:min(len(s.Files), largest)] {
			fmt.Fprintf(w, "             something of %q\n", p)
		}
		if more := len(s.Files) - largest; more > 0 {
			fmt.Fprintf(w, "             and of %d files more, see --json\n", more)
		}
	}
	if r.Map == nil {
		return
	}
	for i, l := range r.Map.Layers {
		fmt.Fprintf(w, "layer %-6d %s, %s: %d files of the image, %s\n", i, l.Digest, size(l.Size), l.Files, size(l.Bytes))
	}
	files := slices.SortedFunc(slices.Values(r.Map.Files), func(a, b zimage.MapFile) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Path, b.Path))
	})
	for _, f := range files[:min(len(files), largest)] {
		fmt.Fprintf(w, "file         %q of layer %d: %s in %d chunks, from chunk %d on\n", f.Path, f.Layer, size(f.Size), len(f.Chunks), f.Chunks[0])
		for _, name := range f.Links[:min(len(f.Links), largest)] {
			fmt.Fprintf(w, "             also %q\n", name)
		}
		if more := len(f.Links) - largest; more > 0 {
			fmt.Fprintf(w, "             and %d names more, see --json\n", more)
		}
	}
	if more := len(files) - largest; more > 0 {
		fmt.Fprintf(w, "             and %d files more, see --json\n", more)
	}
}

func printManifest(w io.Writer, id string, m zimage.Manifest) {
	fmt.Fprintf(w, "image id     %s\nformat       %d\nOCI digest   %s (%s)\nverity root  %s\nSPDX         %s\ndisk         %s: %s data, %s hash tree\nchunks       %d\n",
		id, m.Format, m.OCI.Manifest, m.OCI.Platform, m.Verity.Root, m.SBOM, size(m.DiskSize), size(m.DataSize), size(m.DiskSize-m.DataSize), len(m.Chunks))
	fmt.Fprintf(w, "process      %q %q\nuser         %s\ndirectory    %s\nstop signal  %s\n",
		m.Config.Entrypoint, m.Config.Cmd, m.Config.User, m.Config.WorkingDir, m.Config.StopSignal)
	for _, e := range m.Config.Env {
		fmt.Fprintf(w, "environment  %s\n", e)
	}
}
