// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/oci"
)

// imageCommands are the commands about what runs.
func imageCommands(a *app) []*cobra.Command {
	image := &cobra.Command{Use: "image", Short: "turn OCI images into verified disks, check them, serve them to nodes"}
	image.AddCommand(a.imageConvert(), a.imageInspect(), a.imageVerify(), a.imageServe(), a.imageBlob())
	return []*cobra.Command{image}
}

// storeFlag is --store. A URL is a mirror that can only be read.
func storeFlag(cmd *cobra.Command, into *string, what string) {
	cmd.Flags().StringVar(into, "store", os.Getenv("ZOS_STORE"), what+" (ZOS_STORE)")
	required(cmd, "store")
}

// converted is the result of zos image convert.
type converted struct {
	ID         string       `json:"id"`
	VerityRoot string       `json:"verityRoot"`
	OCI        zimage.OCI   `json:"oci"`
	DataSize   int64        `json:"dataSize"`
	DiskSize   int64        `json:"diskSize"`
	Chunks     int          `json:"chunks"`
	New        zimage.Added `json:"new"` // what the store did not have
	TookMs     int64        `json:"tookMs"`
}

func (a *app) imageConvert() *cobra.Command {
	var store, platform string
	cmd := &cobra.Command{
		Use:   "convert REF --store DIR",
		Short: "convert an OCI image into a Zero-Image in a store",
		Long: `Convert an OCI image into a Zero-Image: one read-only disk with a dm-verity
tree, cut into chunks that are named by their hash. The same image gives the
same id and the same verity root on any machine.

REF is oci:DIR[@sha256:…] (an OCI layout), docker-archive:FILE (docker save,
not compressed) or HOST/NAME@sha256:… (a registry). A tag is refused, since it
may be another image tomorrow.

Exit codes: 0 converted, 3 refused (a digest does not match, an entry of a
layer is not allowed), 4 no such image or file, 5 registry does not answer.`,
		Example: `  zos image convert oci:build/oci/web --store build/store
  zos image convert docker-archive:web.tar --store build/store --json
  zos image convert ghcr.io/example/web@sha256:0123… --store build/store --platform linux/arm64`,
		Args: exactly(1, "one image reference"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := zimage.OpenStore(store)
			if err != nil {
				return imageError(err)
			}
			start := time.Now()
			m, id, err := convertRef(cmd.Context(), args[0], platform, s, a.bytesDone("convert "+args[0]))
			if err != nil {
				return imageError(err)
			}
			r := converted{id, m.Verity.Root, m.OCI, m.DataSize, m.DiskSize, len(m.Chunks), s.Added(), time.Since(start).Milliseconds()}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "image id     %s\nverity root  %s\nOCI digest   %s (%s)\ndisk         %s, of which %s hash tree\nchunks       %d, new %d (%s)\ntook         %v\n",
					r.ID, r.VerityRoot, r.OCI.Manifest, r.OCI.Platform, size(r.DiskSize), size(r.DiskSize-r.DataSize),
					r.Chunks, r.New.Chunks, size(r.New.Bytes), time.Duration(r.TookMs)*time.Millisecond)
			})
		},
	}
	cmd.Flags().StringVar(&platform, "platform", "linux/amd64", "linux/amd64 or linux/arm64")
	storeFlag(cmd, &store, "folder of the store")
	return cmd
}

func convertRef(ctx context.Context, ref, platform string, s *zimage.Store, progress func(done, total int64)) (m zimage.Manifest, id string, err error) {
	src, err := oci.OpenSource(ref)
	if err != nil {
		return zimage.Manifest{}, "", err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	return zimage.Convert(ctx, src, platform, s, progress)
}

func (a *app) imageInspect() *cobra.Command {
	var store, platform string
	cmd := &cobra.Command{
		Use:   "inspect REF|ID --store DIR|URL",
		Short: "show what a Zero-Image is made of",
		Long: `Show the manifest of a Zero-Image by its id, or by the OCI reference that it was
converted from. With --json it is the whole manifest, chunk by chunk.`,
		Example: `  zos image inspect oci:build/oci/web --store build/store
  zos image inspect sha256:0123… --store http://127.0.0.1:8480`,
		Args: exactly(1, "one image id or image reference"),
		RunE: func(cmd *cobra.Command, args []string) error {
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
			return a.print(map[string]any{"id": id, "manifest": m}, func(w io.Writer) { printManifest(w, id, m) })
		},
	}
	cmd.Flags().StringVar(&platform, "platform", "linux/amd64", "of a REF: linux/amd64 or linux/arm64")
	storeFlag(cmd, &store, "folder of the store, or URL of a mirror")
	return cmd
}

func printManifest(w io.Writer, id string, m zimage.Manifest) {
	fmt.Fprintf(w, "image id     %s\nformat       %d\nOCI digest   %s (%s)\nverity root  %s\ndisk         %s: %s data, %s hash tree\nchunks       %d\n",
		id, m.Format, m.OCI.Manifest, m.OCI.Platform, m.Verity.Root, size(m.DiskSize), size(m.DataSize), size(m.DiskSize-m.DataSize), len(m.Chunks))
	fmt.Fprintf(w, "process      %q %q\nuser         %s\ndirectory    %s\nstop signal  %s\n",
		m.Config.Entrypoint, m.Config.Cmd, m.Config.User, m.Config.WorkingDir, m.Config.StopSignal)
	for _, e := range m.Config.Env {
		fmt.Fprintf(w, "environment  %s\n", e)
	}
}

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

Exit codes: 0 all is as it should be, 3 it is not, 4 not there, 5 no answer.`,
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
			if err != nil {
				return imageError(err)
			}
			if ref != "" {
				if err := a.convertAgain(ctx, ref, args[0], m); err != nil {
					return imageError(err)
				}
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

// convertAgain makes the image once more, in a store that is thrown away.
func (a *app) convertAgain(ctx context.Context, ref, id string, m zimage.Manifest) (err error) {
	dir, err := os.MkdirTemp("", "zos-verify-")
	if err != nil {
		return fmt.Errorf("temporary store: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := zimage.OpenStore(dir)
	if err != nil {
		return err
	}
	again, got, err := convertRef(ctx, ref, m.OCI.Platform, s, a.bytesDone("convert "+ref))
	if err != nil {
		return err
	}
	if got != id {
		return fmt.Errorf("%s converts to %s with verity root %s, but %s has root %s: %w",
			ref, got, again.Verity.Root, id, m.Verity.Root, zimage.ErrMismatch)
	}
	return nil
}

func (a *app) imageServe() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "serve DIR --listen ADDR",
		Short: "serve a store to nodes, as a mirror",
		Long: `Serve a store over HTTP until Ctrl-C. A mirror is plain files: any web server
can do the same. Nodes trust none of them and check every byte.`,
		Example: `  zos image serve build/store --listen 127.0.0.1:8480`,
		Args:    exactly(1, "the folder of a store"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkListen(listen); err != nil {
				return err
			}
			s, err := openStore(args[0])
			if err != nil {
				return imageError(err)
			}
			l, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", listen)
			if err != nil {
				return coded(exitFailed, fmt.Errorf("serve %s: %w; does another mirror run? --listen takes another address", args[0], err))
			}
			url := "http://" + l.Addr().String()
			if err := a.print(map[string]any{"url": url, "store": args[0]}, func(w io.Writer) {
				fmt.Fprintf(w, "mirror of %s on %s\n", args[0], url)
			}); err != nil {
				return errors.Join(err, l.Close())
			}
			return coded(exitFailed, serveUntil(cmd.Context(), l, zimage.Handler(s)))
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8480", "address to listen on")
	return cmd
}

// serveUntil serves until the context ends, then lets requests in progress
// finish for a moment.
func serveUntil(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := srv.Shutdown(last); err != nil {
		return errors.Join(fmt.Errorf("stop serving: %w", err), srv.Close())
	}
	return nil
}

func (a *app) imageBlob() *cobra.Command {
	var store string
	cmd := &cobra.Command{
		Use:     "blob FILE --store DIR",
		Short:   "add a guest kernel or initramfs to a store",
		Example: `  zos image blob build/guest/vmlinuz --store build/store`,
		Args:    exactly(1, "one file"),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := zimage.OpenStore(store)
			if err != nil {
				return imageError(err)
			}
			digest, err := s.AddBlob(args[0])
			if err != nil {
				return imageError(err)
			}
			return a.print(map[string]any{"file": args[0], "digest": digest}, func(w io.Writer) { fmt.Fprintln(w, digest) })
		},
	}
	storeFlag(cmd, &store, "folder of the store")
	return cmd
}
