// SPDX-License-Identifier: Apache-2.0

// Package fattest has a disk in memory whose power can be cut at every write
// and sync. Of what was not synced by then, each sector is there or not, as a
// test chooses: disks promise no order.
package fattest

import (
	"io"
	"maps"
	"math/rand/v2"
)

const sector = 512

// write is one sector that was given to the disk.
type write struct {
	at int64
	b  [sector]byte
}

// Device is a disk: a base that never changes, and what was written over it.
type Device struct {
	base    io.ReaderAt
	durable map[int64][sector]byte
	pending []write
	// Left is how many calls of WriteAt and Sync are still carried out before
	// the power goes; negative: it stays.
	Left int
	// Calls counts those that were carried out.
	Calls int
	dead  bool
}

// New begins with what base holds.
func New(base io.ReaderAt) *Device {
	return &Device{base: base, durable: map[int64][sector]byte{}, Left: -1}
}

// errCut is what a disk without power says.
type errCut struct{}

func (errCut) Error() string { return "the power is gone" }

// ErrCut is returned from the cut on.
var ErrCut error = errCut{}

func (d *Device) step() error {
	if d.dead || d.Left == 0 {
		d.dead = true
		return ErrCut
	}
	if d.Left > 0 {
		d.Left--
	}
	d.Calls++
	return nil
}

// ReadAt reads what the disk would answer now.
func (d *Device) ReadAt(b []byte, at int64) (int, error) {
	n, err := d.base.ReadAt(b, at)
	if err != nil {
		return n, err
	}
	over := func(where int64, s [sector]byte) {
		from, to := max(where, at), min(where+sector, at+int64(len(b)))
		if from < to {
			copy(b[from-at:to-at], s[from-where:to-where])
		}
	}
	for s := at / sector * sector; s < at+int64(len(b)); s += sector {
		if v, ok := d.durable[s]; ok {
			over(s, v)
		}
	}
	for _, w := range d.pending {
		over(w.at, w.b)
	}
	return n, nil
}

// WriteAt takes whole sectors; until the next Sync a cut may keep any of them.
func (d *Device) WriteAt(b []byte, at int64) (int, error) {
	if at%sector != 0 || len(b)%sector != 0 {
		panic("fattest: a write of a part of a sector")
	}
	if err := d.step(); err != nil {
		return 0, err
	}
	for i := 0; i < len(b); i += sector {
		d.pending = append(d.pending, write{at + int64(i), [sector]byte(b[i:])})
	}
	return len(b), nil
}

// Sync makes all that was written last.
func (d *Device) Sync() error {
	if err := d.step(); err != nil {
		return err
	}
	for _, w := range d.pending {
		d.durable[w.at] = w.b
	}
	d.pending = nil
	return nil
}

// Cut is the disk after the power went: of what was not synced, each sector is
// there or not, as keep says.
func (d *Device) Cut(keep func() bool) *Device {
	c := &Device{base: d.base, durable: maps.Clone(d.durable), Left: -1}
	for _, w := range d.pending {
		if keep() {
			c.durable[w.at] = w.b
		}
	}
	return c
}

// Ways are the ways in which a cut can go: nothing of what was not synced is
// there, all of it, and a number of mixtures.
func Ways(seed uint64, mixtures int) []func() bool {
	ways := []func() bool{func() bool { return false }, func() bool { return true }}
	for i := range mixtures {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		ways = append(ways, func() bool { return r.IntN(2) == 0 })
	}
	return ways
}
