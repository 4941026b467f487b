// SPDX-License-Identifier: Apache-2.0

// Command mkimages makes the example's two OCI images as OCI layouts:
//
//	OUT/app   the static web service of examples/shop/app, and its canary
//	OUT/web   nginx, put together from Debian's packages
//
// It stands in for whatever builds images elsewhere; zos takes any. What is
// worth a look is the second one: the packages come through apt, checked
// against the signed index and a lock, are only unpacked (no package script
// runs), and what a machine with one process does not need stays out: there
// is no shell in the image.
//
// The same lock and the same Go toolchain give the same two digests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/zos-node/zos/kernel"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimages:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("mkimages", flag.ContinueOnError)
	out := f.String("o", "build/oci", "folder for the images, and for web.lock")
	cache := f.String("cache", "build/cache/debian", "folder for packages")
	arch := f.String("arch", "amd64", "amd64 or arm64")
	update := f.Bool("update", false, "take the newest packages, whatever the locks say; then web.lock is worth committing")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *arch != "amd64" && *arch != "arm64" || f.NArg() != 0 {
		return errors.New("want -arch amd64 or arm64, and no arguments; see -h")
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	app, err := appImage(ctx, *arch)
	if err != nil {
		return fmt.Errorf("app: %w", err)
	}
	if err := report("app", *out, app, *arch, "static Go program"); err != nil {
		return err
	}
	debs, err := packages(ctx, *cache, filepath.Join(*out, "web.lock"), *arch, *update, log)
	if err != nil {
		return fmt.Errorf("web: %w", err)
	}
	web, err := webImage(ctx, debs, *arch)
	if err != nil {
		return fmt.Errorf("web: %w", err)
	}
	return report("web", *out, web, *arch, fmt.Sprintf("%s from %d packages of Debian %s", nginxOf(debs), len(debs), kernel.Suite))
}

// report writes an image and says what it is.
func report(name, out string, img v1.Image, arch, what string) error {
	size, err := write(filepath.Join(out, name), img, arch)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Printf("%-4s %s  %.1f MiB  %s\n", name, digest, float64(size)/(1<<20), what)
	return nil
}
