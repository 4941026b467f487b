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
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/flat"
	"github.com/zos-node/zos/zimage/sbom"
)

// imageCommands are the commands about what runs.
func imageCommands(a *app) []*cobra.Command {
	image := &cobra.Command{Use: "image", Short: "turn OCI images into verified disks, check them, serve them to nodes"}
	image.AddCommand(a.imageConvert(), a.imageInspect(), a.imageVerify(), a.imageExport(), a.imageServe(), a.imageBlob(), a.imagePublish(), a.imageSBOM())
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
	SBOM       string       `json:"sbom"` // digest of the SPDX document
	DataSize   int64        `json:"dataSize"`
	DiskSize   int64        `json:"diskSize"`
	Chunks     int          `json:"chunks"`
	New        zimage.Added `json:"new"` // what the store did not have
	// Dropped lists what layers have and an image cannot: device nodes, and
	// extended attributes that EROFS has no place for.
	Dropped []flat.Dropped `json:"dropped"`
	// Missing lists shared objects that executables need and the image has not;
	// Unread lists package databases that the SPDX document does not cover.
	Missing []sbom.Missing `json:"missing"`
	Unread  []string       `json:"unread"`
	TookMs  int64          `json:"tookMs"`
}

func (a *app) imageConvert() *cobra.Command {
	var store, platform string
	var strict bool
	cmd := &cobra.Command{
		Use:   "convert REF --store DIR",
		Short: "convert an OCI image into a Zero-Image in a store",
		Long: `Convert an OCI image into a Zero-Image: one read-only disk with a dm-verity
tree, cut into chunks that are named by their hash. The same image gives the
same id and the same verity root on any machine.

REF is oci:DIR[@sha256:…] (an OCI layout), docker-archive:FILE (docker save,
not compressed) or HOST/NAME@sha256:… (a registry). A tag is refused, since it
may be another image tomorrow.

An SPDX document of what is inside is written too (zos image sbom shows it): its
digest is in the image's manifest, and so is signed with a spec that names the
image. Device nodes, which an image cannot have, are listed, so are extended
attributes other than user.*, trusted.*, security.* and POSIX ACLs, and shared
objects that an executable needs and the image does not have, and package databases
that the document does not cover. With --strict an image with one of these last two
is refused.

--store is a store, an empty folder, or none yet.

Exit codes: 0 converted, 1 failed, as on a full disk, 3 refused (a digest does not
match, an entry of a layer is not allowed, --store is a folder with other things),
4 no such image or file, 5 registry does not answer.`,
		Example: `  zos image convert oci:build/oci/web --store build/store
  zos image convert docker-archive:web.tar --store build/store --json
  zos image convert ghcr.io/example/web@sha256:0123… --store build/store --platform linux/arm64`,
		Args: exactly(1, "one image reference"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkPlatform(platform); err != nil {
				return err
			}
			s, undo, err := makeStore(store)
			if err != nil {
				return imageError(err)
			}
			start := time.Now()
			c := zimage.Converter{Store: s, Strict: strict, Progress: a.bytesDone("convert " + args[0])}
			made, err := convertRef(cmd.Context(), c, args[0], platform)
			if err != nil {
				undo()
				return imageError(err)
			}
			m := made.Manifest
			r := converted{
				ID: made.ID, VerityRoot: m.Verity.Root, OCI: m.OCI, DataSize: m.DataSize, DiskSize: m.DiskSize, Chunks: len(m.Chunks),
				New: s.Added(), Dropped: append([]flat.Dropped{}, made.Dropped...), Missing: append([]sbom.Missing{}, made.Missing...),
				Unread: append([]string{}, made.Unread...), SBOM: m.SBOM, TookMs: time.Since(start).Milliseconds(),
			}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "image id     %s\nverity root  %s\nOCI digest   %s (%s)\nSPDX         %s\ndisk         %s, of which %s hash tree\nchunks       %d, new %d (%s)\ntook         %v\n",
					r.ID, r.VerityRoot, r.OCI.Manifest, r.OCI.Platform, r.SBOM, size(r.DiskSize), size(r.DiskSize-r.DataSize),
					r.Chunks, r.New.Chunks, size(r.New.Bytes), time.Duration(r.TookMs)*time.Millisecond)
				for _, d := range r.Dropped {
					if d.Attribute != "" {
						fmt.Fprintf(w, "dropped      %q of %d files, the first %q: no POSIX ACL, user.*, trusted.* or security.*\n", d.Attribute, d.Files, d.Name)
						continue
					}
					fmt.Fprintf(w, "dropped      %q: %s device %d:%d\n", d.Name, d.Kind, d.Major, d.Minor)
				}
				for _, m := range r.Missing {
					fmt.Fprintf(w, "missing      %q, which %q needs, for %q\n", m.Needs, m.By, m.Executable)
				}
				for _, name := range r.Unread {
					fmt.Fprintf(w, "not read     %q: its packages are not in the SPDX document\n", name)
				}
			})
		},
	}
	cmd.Flags().StringVar(&platform, "platform", "linux/amd64", "linux/amd64 or linux/arm64")
	cmd.Flags().BoolVar(&strict, "strict", false, "refuse an image that lacks a shared object, or whose packages are not all known")
	storeFlag(cmd, &store, "folder of the store")
	return cmd
}

// convertMemory is what a conversion may take, by the contract; the limit of
// the collector is a little less, for what is not Go's.
const convertMemory = 256 << 20

// convertRef converts an OCI reference. It has the collector work harder
// before memory exceeds the contract, unless the user set a limit of his own.
func convertRef(ctx context.Context, c zimage.Converter, ref, platform string) (r zimage.Result, err error) {
	if os.Getenv("GOMEMLIMIT") == "" {
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(convertMemory * 7 / 8))
	}
	src, err := openSource(ref)
	if err != nil {
		return zimage.Result{}, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	return c.Convert(ctx, src, platform)
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
			if err := checkListen("listen", listen); err != nil {
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
			if err := regularOrAbsent(args[0], "what guests start with"); err != nil {
				return err
			}
			s, undo, err := makeStore(store)
			if err != nil {
				return imageError(err)
			}
			digest, err := s.AddBlob(args[0])
			if err != nil {
				undo()
				return imageError(err)
			}
			return a.print(map[string]any{"file": args[0], "digest": digest}, func(w io.Writer) { fmt.Fprintln(w, digest) })
		},
	}
	storeFlag(cmd, &store, "folder of the store")
	return cmd
}
