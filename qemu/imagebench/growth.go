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
	CPUMs int64 `json:"cpuMs"`
	KiB   int64 `json:"residentKiB"`
	// PerFileUs and PerMiBUs, of processor time, are what is constant where
	// growth is linear.
	PerFileUs int64 `json:"perFileUs"`
	PerMiBUs  int64 `json:"perMiBUs"`
	// Times is the time per file, or per byte, by that of the smaller one before
	// it in its series: 1 is linear, less is what does not grow being shared by
	// more. The first of a series has none.
	Times float64 `json:"times,omitempty"`
	Goal  string  `json:"goal"`
	Holds bool    `json:"holds"`
	Load  string  `json:"load"`
}

// What linear means: noise and a page cache are allowed that much.
const (
	growthTimes  = 1.25
	growthMemory = 256 << 10 // KiB
)

// hold compares a conversion with the one before it in its series, of files or
// of bytes.
func (g *growth) hold(before *growth) {
	g.Goal = fmt.Sprintf("<= %.2f times per unit, <= %d MiB", growthTimes, growthMemory>>10)
	switch {
	case before == nil:
	case g.Files > before.Files:
		g.Times = float64(g.PerFileUs) / float64(max(before.PerFileUs, 1))
	default:
		g.Times = float64(g.PerMiBUs) / float64(max(before.PerMiBUs, 1))
	}
	g.Holds = g.Times <= growthTimes && g.KiB <= growthMemory
}

// grow converts images of more and more files, and of larger and larger ones.
func (b *bench) grow(ctx context.Context, largest int64) error {
	type size struct {
		files int
		each  int64
	}
	files := []size{{1000, 1000}, {10_000, 1000}, {100_000, 1000}}
	var bytes []size
	for total := int64(10 << 20); total < largest; total *= 10 {
		bytes = append(bytes, size{8, total / 8})
	}
	bytes = append(bytes, size{8, largest / 8})
	for i, s := range append(files, bytes...) {
		fmt.Printf("== growth: %d files of %d bytes\n", s.files, s.each)
		if err := b.fresh(); err != nil {
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
		g := growth{Files: s.files, Bytes: int64(s.files) * s.each, Ms: p.took.Milliseconds(), CPUMs: p.cpu.Milliseconds(), KiB: p.kib, Load: load()}
		g.PerFileUs, g.PerMiBUs = g.CPUMs*1000/int64(g.Files), (g.CPUMs*1000)<<20/max(g.Bytes, 1)
		var before *growth
		if i != 0 && i != len(files) {
			before = &b.res.Growth[len(b.res.Growth)-1]
		}
		g.hold(before)
		b.res.Growth = append(b.res.Growth, g)
		fmt.Printf("   %d ms, %d ms on a processor: %d us a file, %d us a MiB, %.2f times that of the one before; %d MiB (goal %s)\n",
			g.Ms, g.CPUMs, g.PerFileUs, g.PerMiBUs, g.Times, g.KiB>>10, g.Goal)
	}
	return b.fresh()
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
