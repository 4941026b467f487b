// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/flat"
	"github.com/zos-node/zos/zimage/oci"
)

// images is a place to read Zero-Images from: a folder or a mirror.
type images struct {
	store   *zimage.Store
	fetcher *zimage.Fetcher
}

func openImages(where string) (*images, error) {
	if strings.HasPrefix(where, "http://") || strings.HasPrefix(where, "https://") {
		return &images{fetcher: &zimage.Fetcher{Mirrors: []string{where}}}, nil
	}
	if _, err := os.Stat(where); err != nil { // only convert and blob make stores
		return nil, fmt.Errorf("store: %w", err)
	}
	s, err := zimage.OpenStore(where)
	return &images{store: s}, err
}

// find turns an image id, or the OCI reference it was made of, into the id.
func (i *images) find(ctx context.Context, ref, platform string) (string, error) {
	if strings.HasPrefix(ref, "sha256:") {
		return ref, nil
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

func (i *images) manifest(ctx context.Context, id string) (zimage.Manifest, error) {
	if i.store != nil {
		return i.store.Manifest(id)
	}
	return i.fetcher.Manifest(ctx, id)
}

func (i *images) verify(ctx context.Context, id string, progress func(done, total int64)) (zimage.Manifest, error) {
	if i.store != nil {
		return i.store.Verify(ctx, id, progress)
	}
	return i.fetcher.Verify(ctx, id, progress)
}

// imageError gives an error about images its exit code.
func imageError(err error) error {
	if err == nil {
		return nil
	}
	var network net.Error
	codes := []struct {
		code int
		is   []error
	}{
		{exitUsage, []error{oci.ErrRef}},
		{exitRefused, []error{zimage.ErrMismatch, zimage.ErrManifest, zimage.ErrSource, flat.ErrLayer, flat.ErrLimit, erofs.ErrTree}},
		{exitNotFound, []error{fs.ErrNotExist, zimage.ErrMissing}},
		{exitUnreachable, []error{zimage.ErrUnreachable}},
	}
	for _, c := range codes {
		for _, target := range c.is {
			if errors.Is(err, target) {
				return coded(c.code, err)
			}
		}
	}
	if errors.As(err, &network) {
		return coded(exitUnreachable, err)
	}
	return coded(exitFailed, err)
}

// bytesDone draws the progress of long work, where people look on.
func (a *app) bytesDone(step string) func(done, total int64) {
	if a.json || !terminal(a.err) {
		return nil
	}
	last := int64(-1)
	return func(done, total int64) {
		percent := done * 100 / max(total, 1)
		switch {
		case done >= total:
			a.progress("", 1, 1) // clears the line
		case percent != last:
			a.progress(fmt.Sprintf("%3d %% %s", percent, step), int(percent), 100)
		}
		last = percent
	}
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
