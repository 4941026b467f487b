// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/flat"
	"github.com/zos-node/zos/zimage/sbom"
)

const (
	// tarOverhead is what layers may have besides file contents: headers and
	// padding.
	tarOverhead = 4 << 30
	// maxRatio and freeBytes bound a bomb: layers may unpack to freeBytes, and
	// beyond that to maxRatio times what they weigh.
	maxRatio  = 200
	freeBytes = 1 << 30
)

// Converter makes the Zero-Image of an OCI image. The same OCI manifest and
// platform give the same image on any machine.
//
// Memory grows with the number of files, not with their size: contents pass
// through unnamed temporary files, or stay in their layer where that is plain
// and lies in a file of a Filer.
type Converter struct {
	// Store takes chunks and manifest. Without one the image is only derived:
	// its id and root are told, and nothing of it is kept.
	Store *Store
	// Temp is the folder of temporary files where there is no Store; empty is
	// the system's.
	Temp string
	// Strict refuses an image that lacks a shared object that one of its
	// executables needs, or whose packages are not all known.
	Strict bool
	// Progress, which may be nil, hears bytes done of bytes in all; the total
	// is an estimate until the layers are read.
	Progress func(done, total int64)
}

// Result is what a conversion made, and what it left out.
type Result struct {
	ID       string
	Manifest Manifest
	// Dropped lists the device nodes that stood in the layers, and the extended
	// attributes that the image has no place for.
	Dropped []flat.Dropped
	// Missing and Unread are what the SPDX document says of missing shared
	// objects, and of package databases that it does not cover.
	Missing []sbom.Missing
	Unread  []string
}

// Convert makes an image and puts it into the store.
func Convert(ctx context.Context, src Source, platform string, store *Store, progress func(done, total int64)) (m Manifest, id string, err error) {
	r, err := Converter{Store: store, Progress: progress}.Convert(ctx, src, platform)
	return r.Manifest, r.ID, err
}

// Convert makes an image.
func (c Converter) Convert(ctx context.Context, src Source, platform string) (r Result, err error) {
	p := &reporter{report: c.Progress}
	from, man, cfg, err := openImage(ctx, src, platform)
	if err != nil {
		return Result{}, err
	}
	spool, err := c.temp()
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, spool.Close()) }()
	tree, files, err := flatten(ctx, src, man, cfg, spool, p)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	m := Manifest{Format: Format, OCI: from}
	if m.Config, err = defaults(cfg, tree); err != nil {
		return Result{}, err
	}
	catalog, err := sbom.Collect(tree)
	if err := tree.Err(); err != nil { // Collect takes it for a file that lists nothing
		return Result{}, err
	}
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrSource, err)
	}
	if c.Strict {
		if err := complete(catalog); err != nil {
			return Result{}, err
		}
	}
	if m.SBOM, err = c.document(m, cfg, catalog); err != nil {
		return Result{}, err
	}
	plan, err := erofs.Plan(tree.Root())
	if err != nil {
		return Result{}, err
	}
	hashes, err := c.temp()
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, hashes.Close()) }()
	// The tree is not needed behind makeDisk: what is read of it is read here.
	r = Result{Dropped: tree.Dropped(), Missing: catalog.Missing, Unread: catalog.Unread}
	if err := c.makeDisk(ctx, plan, hashes, &m, p); err != nil {
		return Result{}, err
	}
	if err := files.unchanged(); err != nil {
		return Result{}, err
	}
	r.Manifest = m
	if c.Store != nil {
		r.ID, err = c.Store.putManifest(m)
	} else {
		r.ID, err = m.id()
	}
	return r, err
}

// document writes the SPDX document and gives its digest.
func (c Converter) document(m Manifest, cfg ociConfig, catalog sbom.Catalog) (digest string, err error) {
	file, err := c.temp()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	sum := sha256.New()
	about := sbom.About{Manifest: m.OCI.Manifest, Platform: m.OCI.Platform, Created: cfg.Created}
	if err := sbom.Write(io.MultiWriter(file, sum), about, catalog); err != nil {
		return "", err
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return "", fmt.Errorf("SPDX document: %w", err)
	}
	if size > MaxSBOM {
		return "", fmt.Errorf("%w: its SPDX document has %d bytes, limit %d", ErrSource, size, MaxSBOM)
	}
	digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if c.Store == nil {
		return digest, nil
	}
	return digest, c.Store.putSBOM(digest, io.NewSectionReader(file, 0, size))
}

// complete refuses an image of which something is missing or unknown.
func complete(c sbom.Catalog) error {
	switch {
	case len(c.Missing) > 0:
		m := c.Missing[0]
		return fmt.Errorf("%w: %q, which %q needs, for %q, is not in it (%d such)", ErrIncomplete, m.Needs, m.By, m.Executable, len(c.Missing))
	case len(c.Unread) > 0:
		return fmt.Errorf("%w: %q lists packages and cannot be read (%d such)", ErrIncomplete, c.Unread[0], len(c.Unread))
	}
	return nil
}

func (c Converter) temp() (*os.File, error) {
	if c.Store != nil {
		return c.Store.temp()
	}
	return unnamed(c.Temp)
}

// flatten reads all layers into one tree. The files that it gives are read with
// the tree, and to be closed.
func flatten(ctx context.Context, src Source, man ociManifest, cfg ociConfig, spool flat.Spool, p *reporter) (_ *flat.Tree, files placed, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, files.Close())
		}
	}()
	limits := flat.DefaultLimits()
	most := limits.Bytes + tarOverhead
	tree := flat.New(spool, limits)
	var wire, read, unpacked int64
	for _, d := range man.Layers {
		wire += max(d.Size, 0)
	}
	p.remaining(wire * 3) // unpacked, layers are about twice as large
	for i, d := range man.Layers {
		read += max(d.Size, 0)
		bound := min(most, freeBytes+maxRatio*read)
		left := bound - unpacked
		tree.Bound(bound)
		if err := addLayer(ctx, src, d, cfg.RootFS.DiffIDs[i], &left, func(n int) { p.add(int64(n)) }, tree, &files); err != nil {
			return nil, files, fmt.Errorf("layer %d: %w", i, err)
		}
		unpacked = bound - left
	}
	return tree, files, nil
}
