// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/flat"
	"github.com/zos-node/zos/zimage/oci"
)

// errNoStore means a folder that is something else.
var errNoStore = errors.New("not a store")

// mirrorTimeout is how long a mirror may take for one file.
const mirrorTimeout = time.Minute

// images is a place to read Zero-Images from: a folder or a mirror.
type images struct {
	store   *zimage.Store
	fetcher *zimage.Fetcher
}

// openImages opens a store or a mirror. The context is the one to read under:
// it ends when the mirror fails.
func openImages(ctx context.Context, where string) (*images, context.Context, error) {
	if strings.HasPrefix(where, "http://") || strings.HasPrefix(where, "https://") {
		ctx, giveUp := context.WithCancelCause(ctx)
		return &images{fetcher: &zimage.Fetcher{Mirrors: []string{where}, HTTP: &http.Client{Timeout: mirrorTimeout, Transport: impatient{giveUp}}}}, ctx, nil
	}
	s, err := openStore(where)
	return &images{store: s}, ctx, err
}

// openStore opens a folder that is a store, to read, or that is empty and may
// become one. zimage.OpenStore would make one of any folder, also of a wrong one.
func openStore(dir string) (*zimage.Store, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, storeError(err)
	}
	if len(list) == 0 {
		s, err := zimage.OpenStore(dir)
		return s, storeError(err)
	}
	if part := lacks(dir); part != "" {
		return nil, fmt.Errorf("%w: %s has no folder %s; zos image convert --store makes a store", errNoStore, dir, part)
	}
	return zimage.ReadStore(dir)
}

// storeFolders are in every store; a folder with all of them is one.
var storeFolders = []string{"chunks", "manifests", "blobs", "by-oci"}

// lacks gives a folder that a store would have; "" for a store.
func lacks(dir string) string {
	for _, part := range storeFolders {
		if info, err := os.Stat(filepath.Join(dir, part)); err != nil || !info.IsDir() {
			return part
		}
	}
	return ""
}

// mayBecome refuses to make a store of a folder in which something else is. A
// store that was not made to its end may become one.
func mayBecome(dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && lacks(dir) == "" {
		return nil
	}
	if err != nil {
		return storeError(err)
	}
	for _, e := range list {
		if !slices.Contains(append([]string{"tmp", "starts", "lost+found"}, storeFolders...), e.Name()) {
			return fmt.Errorf("%w: %s is a folder with other things in it (%q); name one that is empty, or not there yet", errNoStore, dir, e.Name())
		}
	}
	return nil
}

// storeError says what to do where a store cannot be opened.
func storeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("store: %w; a store is a folder, zos image convert --store DIR makes one", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("store: %w; its owner can let you read it, or run this", err)
	}
	return fmt.Errorf("store: %w", err)
}

// makeStore opens a folder that is a store, or makes one. undo removes what was
// made, as far as nothing was put into it.
func makeStore(dir string) (s *zimage.Store, undo func(), err error) {
	undo = func() {}
	if err := mayBecome(dir); err != nil {
		return nil, undo, err
	}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		undo = func() {
			parts, err := filepath.Glob(filepath.Join(dir, "*"))
			if err != nil {
				return // dir has characters that Glob takes for a pattern
			}
			for _, path := range append(parts, dir) {
				syscall.Rmdir(path) // what is not empty stays
			}
		}
	}
	s, err = zimage.OpenStore(dir)
	return s, undo, storeError(err)
}

// checkPlatform refuses platforms that images are not for.
func checkPlatform(platform string) error {
	if platform != "linux/amd64" && platform != "linux/arm64" {
		return coded(exitUsage, fmt.Errorf("--platform %q: want linux/amd64 or linux/arm64", platform))
	}
	return nil
}

// imageID is the form of an image's id.
var imageID = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// checkID refuses what cannot be the id of an image.
func checkID(id string) error {
	if !imageID.MatchString(id) {
		return coded(exitUsage, fmt.Errorf("image id: is %q, want sha256:<64 hex digits>", id))
	}
	return nil
}

// checkPlatformOf refuses a --platform that is none, and one that nothing is asked
// for: an image id is of one platform.
func checkPlatformOf(cmd *cobra.Command, platform string, refs ...string) error {
	if err := checkPlatform(platform); err != nil {
		return err
	}
	isID := func(ref string) bool { return strings.HasPrefix(ref, "sha256:") }
	if cmd.Flags().Changed("platform") && !slices.ContainsFunc(refs, func(ref string) bool { return !isID(ref) }) {
		return coded(exitUsage, errors.New("--platform picks the image of an OCI reference, and an image id is of one platform; leave --platform out, or give the reference"))
	}
	return nil
}

// find turns an image id, or the OCI reference it was made of, into the id.
func (i *images) find(ctx context.Context, ref, platform string) (string, error) {
	if strings.HasPrefix(ref, "sha256:") {
		return ref, checkID(ref)
	}
	digest, err := oci.Resolve(ctx, ref, platform)
	if err != nil {
		return "", err
	}
	hint := zimage.Hint{}
	if i.store != nil {
		hint, err = i.store.Hint(digest, platform)
	} else {
		hint, err = i.fetcher.Hint(ctx, digest, platform)
	}
	if err != nil {
		return "", fmt.Errorf("%s (%s, %s) was not converted into this store: %w", ref, digest, platform, err)
	}
	return hint.ID, nil
}

// has refuses an id that a store does not have; a mirror is asked for the image itself.
func (i *images) has(id string) error {
	if i.store == nil {
		return nil
	}
	has, err := i.store.HasImage(id)
	if err == nil && !has {
		return coded(exitNotFound, fmt.Errorf("%s has no image of the id %s; zos image convert shows an image's id, and %s/manifests has a file for each that is there", i.store.Dir(), id, i.store.Dir()))
	}
	return storeError(err)
}

func (i *images) manifest(ctx context.Context, id string) (zimage.Manifest, error) {
	if err := i.has(id); err != nil {
		return zimage.Manifest{}, err
	}
	if i.store != nil {
		return i.store.Manifest(id)
	}
	return i.fetcher.Manifest(ctx, id)
}

func (i *images) sbom(ctx context.Context, m zimage.Manifest) ([]byte, error) {
	if i.store != nil {
		return i.store.SBOM(m)
	}
	return i.fetcher.SBOM(ctx, m)
}

func (i *images) verify(ctx context.Context, id string, progress func(done, total int64)) (zimage.Manifest, error) {
	if err := i.has(id); err != nil {
		return zimage.Manifest{}, err
	}
	if i.store != nil {
		return i.store.Verify(ctx, id, progress)
	}
	return i.fetcher.Verify(ctx, id, progress)
}

// export writes an image's disk into a file.
func (i *images) export(ctx context.Context, id string, to *os.File, progress func(done, total int64)) (zimage.Manifest, error) {
	if err := i.has(id); err != nil {
		return zimage.Manifest{}, err
	}
	if i.store != nil {
		return i.store.Export(ctx, id, to, progress)
	}
	return i.fetcher.Export(ctx, id, to, progress)
}

// imageError gives an error about images its exit code.
func imageError(err error) error {
	if err == nil {
		return nil
	}
	if c := new(codedError); errors.As(err, &c) {
		return err
	}
	codes := []struct {
		code int
		is   []error
	}{
		{exitRefused, []error{errNoStore, oci.ErrRef, zimage.ErrMismatch, zimage.ErrManifest, zimage.ErrSource, zimage.ErrIncomplete, flat.ErrLayer, flat.ErrLimit, erofs.ErrTree}},
		{exitNotFound, []error{fs.ErrNotExist, zimage.ErrMissing}},
	}
	for _, c := range codes {
		for _, target := range c.is {
			if errors.Is(err, target) {
				return coded(c.code, err)
			}
		}
	}
	if offline(err) {
		return coded(exitUnreachable, err)
	}
	return coded(exitFailed, err)
}

// offline says whether err comes from a server that gave no answer. It does not
// ask for a net.Error: a failed system call on a file is one too.
func offline(err error) bool {
	var call *net.OpError
	var request *url.Error
	return errors.Is(err, zimage.ErrUnreachable) || errors.As(err, &call) || errors.As(err, &request)
}

// size writes bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 10<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}
