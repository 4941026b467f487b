// SPDX-License-Identifier: Apache-2.0

// Package edtable verifies Ed25519 signatures of keys that sign again and
// again: of such a key, and of the curve's base point, it keeps multiples, so
// that a verification is some eighty additions of points and no doubling.
//
// It accepts exactly what crypto/ed25519 accepts: the same equation without
// cofactor, [S]B = R + [k]A, the same encodings, R compared byte for byte. A
// signature is never good for one reader of a ledger and bad for another.
// Nothing here is secret, so nothing takes constant time.
package edtable

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"fmt"

	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"
)

// How many bits of a scalar one addition takes: the base point is in every
// verification, a key in its own.
const (
	baseWidth = 8
	keyWidth  = 6
)

// affine is a point as the addition wants it: y+x, y-x, 2dxy.
type affine struct{ sum, difference, product field.Element }

// table holds, for each digit of a scalar, 1 to 2^(width-1) times the digit's
// place times a point.
type table struct {
	width  int
	points []affine
}

// newTable makes the table of a point; d2 is twice the curve's d.
func newTable(p *edwards25519.Point, width int, d2 *field.Element) *table {
	largest := 1 << (width - 1)
	n := (254 + width - 1) / width * largest // scalars are below 2^253, and a digit may carry
	all := make([]edwards25519.Point, n)
	base := *p
	for i := 0; i < n; i += largest {
		all[i] = base
		for j := i + 1; j < i+largest; j++ {
			all[j].Add(&all[j-1], &base)
		}
		base.Add(&all[i+largest-1], &all[i+largest-1])
	}
	// One inversion serves all: before[i] is the product of the Z before i.
	x, y, z, before := make([]*field.Element, n), make([]*field.Element, n), make([]*field.Element, n), make([]field.Element, n)
	product := new(field.Element).One()
	for i := range all {
		x[i], y[i], z[i], _ = all[i].ExtendedCoordinates()
		before[i] = *product
		product.Multiply(product, z[i])
	}
	rest := new(field.Element).Invert(product)
	t := &table{width, make([]affine, n)}
	for i := n - 1; i >= 0; i-- {
		inverse := new(field.Element).Multiply(rest, &before[i])
		rest.Multiply(rest, z[i])
		x[i].Multiply(x[i], inverse)
		y[i].Multiply(y[i], inverse)
		a := &t.points[i]
		a.sum.Add(y[i], x[i])
		a.difference.Subtract(y[i], x[i])
		a.product.Multiply(x[i], y[i])
		a.product.Multiply(&a.product, d2)
	}
	return t
}

// point is a sum in extended coordinates.
type point struct{ x, y, z, t field.Element }

// add adds an affine point, or subtracts it: formulas for a = -1 that hold for
// all points of the curve ("Twisted Edwards Curves Revisited", section 3.1).
func (p *point) add(q *affine, minus bool) {
	sum, difference := &q.sum, &q.difference
	if minus {
		sum, difference = difference, sum
	}
	var a, b, c, d, e, f, g, h field.Element
	a.Subtract(&p.y, &p.x)
	a.Multiply(&a, difference)
	b.Add(&p.y, &p.x)
	b.Multiply(&b, sum)
	c.Multiply(&p.t, &q.product)
	d.Add(&p.z, &p.z)
	e.Subtract(&b, &a)
	h.Add(&b, &a)
	if minus {
		f.Add(&d, &c)
		g.Subtract(&d, &c)
	} else {
		f.Subtract(&d, &c)
		g.Add(&d, &c)
	}
	p.x.Multiply(&e, &f)
	p.y.Multiply(&g, &h)
	p.z.Multiply(&f, &g)
	p.t.Multiply(&e, &h)
}

// addMultiple adds the table's point times a scalar, of which b are the bytes, the
// lowest first: digit by digit, from -(2^(width-1)-1) to 2^(width-1).
func (t *table) addMultiple(p *point, b []byte) {
	largest, carry := 1<<(t.width-1), 0
	for bit, at := 0, 0; at < len(t.points); bit, at = bit+t.width, at+largest {
		d := 0
		if i := bit / 8; i < len(b) {
			d = int(b[i]) >> (bit % 8)
			if i+1 < len(b) {
				d |= int(b[i+1]) << (8 - bit%8)
			}
		}
		d = d&(1<<t.width-1) + carry
		if carry = 0; d > largest {
			d, carry = d-1<<t.width, 1
		}
		switch {
		case d > 0:
			p.add(&t.points[at+d-1], false)
		case d < 0:
			p.add(&t.points[at-d-1], true)
		}
	}
}

// Base holds the multiples of the curve's base point, which all keys share:
// 490 kB.
type Base struct {
	table *table
	d2    *field.Element
}

// NewBase computes them, in a few milliseconds.
func NewBase() *Base {
	small := func(n int) *field.Element {
		b := make([]byte, 32)
		b[0], b[1], b[2] = byte(n), byte(n>>8), byte(n>>16)
		e, err := new(field.Element).SetBytes(b)
		if err != nil {
			panic(err) // 32 bytes always are an element
		}
		return e
	}
	// d is -121665/121666 (RFC 8032, section 5.1).
	d := new(field.Element).Invert(small(121666))
	d.Multiply(d, small(121665))
	d.Negate(d)
	d.Add(d, d)
	return &Base{newTable(edwards25519.NewGeneratorPoint(), baseWidth, d), d}
}

// Key is a public key with the multiples of its negative: 165 kB.
type Key struct {
	public [ed25519.PublicKeySize]byte
	base   *Base
	minus  *table
}

// NewKey reads a public key, in about a millisecond. Errors are for bytes with
// which crypto/ed25519 would refuse every signature.
func NewKey(base *Base, public []byte) (*Key, error) {
	if len(public) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("ed25519 key has %d bytes, want %d", len(public), ed25519.PublicKeySize)
	}
	a, err := new(edwards25519.Point).SetBytes(public)
	if err != nil {
		return nil, fmt.Errorf("ed25519 key is no point: %w", err)
	}
	return &Key{[ed25519.PublicKeySize]byte(public), base, newTable(a.Negate(a), keyWidth, base.d2)}, nil
}

// Verify is ed25519.Verify.
func (k *Key) Verify(message, sig []byte) bool {
	if len(sig) != ed25519.SignatureSize {
		return false
	}
	h := sha512.New()
	h.Write(sig[:32])
	h.Write(k.public[:])
	h.Write(message)
	var sum [sha512.Size]byte
	c, err := edwards25519.NewScalar().SetUniformBytes(h.Sum(sum[:0]))
	if err != nil {
		return false
	}
	s, err := edwards25519.NewScalar().SetCanonicalBytes(sig[32:])
	if err != nil {
		return false
	}
	var r point // zero is x = 0, y = z = 1
	r.y.One()
	r.z.One()
	k.base.table.addMultiple(&r, s.Bytes())
	k.minus.addMultiple(&r, c.Bytes())
	r.z.Invert(&r.z)
	r.x.Multiply(&r.x, &r.z)
	r.y.Multiply(&r.y, &r.z)
	b := r.y.Bytes()
	b[31] |= byte(r.x.IsNegative() << 7)
	return bytes.Equal(b, sig[:32])
}
