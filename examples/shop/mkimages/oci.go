// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// image makes an OCI image of one layer. The layer is not compressed: its
// digest must not depend on a compressor's version.
func image(t tree, arch string, config v1.Config) (v1.Image, error) {
	b, err := t.tar()
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.AppendLayers(img, static.NewLayer(b, types.OCIUncompressedLayer)); err != nil {
		return nil, fmt.Errorf("add layer: %w", err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Config = "linux", arch, config
	cfg.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		return nil, fmt.Errorf("set configuration: %w", err)
	}
	return img, nil
}

// write replaces dir by an OCI layout with the one image, and gives the size
// of its layers.
func write(dir string, img v1.Image, arch string) (size int64, err error) {
	tmp := dir + ".part"
	if err := os.RemoveAll(tmp); err != nil {
		return 0, fmt.Errorf("write image: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	l, err := layout.Write(tmp, empty.Index)
	if err != nil {
		return 0, fmt.Errorf("write image: %w", err)
	}
	if err := l.AppendImage(img, layout.WithPlatform(v1.Platform{OS: "linux", Architecture: arch})); err != nil {
		return 0, fmt.Errorf("write image: %w", err)
	}
	layers, err := img.Layers()
	if err != nil {
		return 0, fmt.Errorf("read layers: %w", err)
	}
	for _, layer := range layers {
		n, err := layer.Size()
		if err != nil {
			return 0, fmt.Errorf("read layers: %w", err)
		}
		size += n
	}
	if err := errors.Join(os.RemoveAll(dir), os.Rename(tmp, dir)); err != nil {
		return 0, fmt.Errorf("write image: %w", err)
	}
	return size, nil
}
