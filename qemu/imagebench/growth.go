// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
)

// growth is one conversion of a series in which one thing grows.
type growth struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	Ms    int64 `json:"ms"`
	KiB   int64 `json:"residentKiB"`
	// PerFileUs and PerMiBMs are what is constant where growth is linear.
	PerFileUs int64 `json:"perFileUs"`
	PerMiBMs  int64 `json:"perMiBMs"`
}

// grow converts images of more and more files, and of larger and larger ones.
func (b *bench) grow(ctx context.Context, largest int64) error {
	type size struct {
		files int
		each  int64
	}
	series := []size{{1000, 1000}, {10_000, 1000}, {100_000, 1000}}
	for total := int64(10 << 20); total < largest; total *= 10 {
		series = append(series, size{8, total / 8})
	}
	series = append(series, size{8, largest / 8})
	for _, s := range series {
		fmt.Printf("== growth: %d files of %d bytes\n", s.files, s.each)
		work := b.path("work")
		if err := clearAll(work); err != nil {
			return err
		}
		if err := synthetic(b.path("work", "oci"), s.files, s.each); err != nil {
			return err
		}
		syscall.Sync()
		p, err := b.measured(ctx, b.zos, "image", "convert", "oci:"+b.path("work", "oci"), "--store", b.path("work", "store"))
		if err != nil {
			return err
		}
		g := growth{Files: s.files, Bytes: int64(s.files) * s.each, Ms: p.took.Milliseconds(), KiB: p.kib}
		g.PerFileUs, g.PerMiBMs = g.Ms*1000/int64(g.Files), g.Ms<<20/max(g.Bytes, 1)
		b.res.Growth = append(b.res.Growth, g)
		fmt.Printf("   %d ms, %d MiB\n", g.Ms, g.KiB>>10)
	}
	return clearAll(b.path("work"))
}

// synthetic writes an image of equal files, half of whose bytes compress.
func synthetic(dir string, files int, each int64) error {
	l, err := newLayer(dir, 0)
	if err != nil {
		return err
	}
	noise, buf := rand.NewChaCha8([32]byte{9}), make([]byte, 64<<10)
	for i := range files {
		h := &tar.Header{Name: fmt.Sprintf("d%03d/file-%06d", i/500, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: each}
		if err := l.out.WriteHeader(h); err != nil {
			return err
		}
		for left := each; left > 0; {
			part := buf[:min(left, int64(len(buf)))]
			if _, err := noise.Read(part[:len(part)/2]); err != nil {
				return err
			}
			if _, err := l.out.Write(part); err != nil {
				return err
			}
			left -= int64(len(part))
		}
	}
	if err := l.close(); err != nil {
		return err
	}
	return errors.Join(writeLayout(dir, []layer{*l}), os.Chmod(dir, 0o755))
}
