// SPDX-License-Identifier: Apache-2.0

package secureboot

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
)

// Object identifiers, in DER.
var (
	oidSignedData    = oid(1, 2, 840, 113549, 1, 7, 2)
	oidData          = oid(1, 2, 840, 113549, 1, 7, 1)
	oidContentType   = oid(1, 2, 840, 113549, 1, 9, 3)
	oidMessageDigest = oid(1, 2, 840, 113549, 1, 9, 4)
	oidRSA           = oid(1, 2, 840, 113549, 1, 1, 1)
	oidSHA256        = oid(2, 16, 840, 1, 101, 3, 4, 2, 1)
	oidIndirectData  = oid(1, 3, 6, 1, 4, 1, 311, 2, 1, 4)
	oidPEImage       = oid(1, 3, 6, 1, 4, 1, 311, 2, 1, 15)
)

// Tags of DER.
const (
	tagInteger  = 0x02
	tagBits     = 0x03
	tagOctets   = 0x04
	tagNull     = 0x05
	tagSequence = 0x30
	tagSet      = 0x31
	tagContext0 = 0xa0 // constructed
	tagContext2 = 0xa2
)

func oid(arcs ...int) []byte {
	b, err := asn1.Marshal(asn1.ObjectIdentifier(arcs))
	if err != nil {
		panic(err) // a mistake in the table above
	}
	return b
}

// tlv is one DER value.
func tlv(tag byte, parts ...[]byte) []byte {
	var body []byte
	for _, p := range parts {
		body = append(body, p...)
	}
	b := []byte{tag}
	switch n := len(body); {
	case n < 0x80:
		b = append(b, byte(n))
	case n < 0x100:
		b = append(b, 0x81, byte(n))
	case n < 0x10000:
		b = append(b, 0x82, byte(n>>8), byte(n))
	default:
		b = append(b, 0x83, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, body...)
}

func algorithm(oid []byte) []byte { return tlv(tagSequence, oid, tlv(tagNull)) }

// signedData is a CMS SignedData by one signer. content is the encapsulated
// content info, digest the SHA-256 of what is signed; attrs are the signed
// attributes in their order, or none, and then digest is signed itself.
func (p Pair) signedData(content []byte, digest [32]byte, attrs ...[]byte) ([]byte, error) {
	info := [][]byte{
		tlv(tagInteger, []byte{1}),
		tlv(tagSequence, p.Cert.RawIssuer, tlv(tagInteger, serial(p.Cert.SerialNumber.Bytes()))),
		algorithm(oidSHA256),
	}
	if len(attrs) > 0 {
		set := tlv(tagSet, attrs...)
		digest = sha256.Sum256(set)
		info = append(info, append([]byte{tagContext0}, set[1:]...)) // [0] IMPLICIT
	}
	sig, err := p.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", p.Cert.Subject.CommonName, err)
	}
	info = append(info, algorithm(oidRSA), tlv(tagOctets, sig))
	return tlv(tagSequence,
		tlv(tagInteger, []byte{1}),
		tlv(tagSet, algorithm(oidSHA256)),
		content,
		tlv(tagContext0, p.Cert.Raw),
		tlv(tagSet, tlv(tagSequence, info...)),
	), nil
}

// serial keeps a number positive.
func serial(b []byte) []byte {
	if len(b) == 0 || b[0] >= 0x80 {
		return append([]byte{0}, b...)
	}
	return b
}
