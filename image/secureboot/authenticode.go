// SPDX-License-Identifier: Apache-2.0

package secureboot

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

var (
	// ErrPE says that bytes are no 64-bit PE program that can be signed.
	ErrPE = errors.New("not a PE program that can be signed")
	// ErrSigned says that a program has a signature already.
	ErrSigned = errors.New("has a signature already")
)

const (
	checksumAt  = 64       // in the optional header
	securityAt  = 112 + 32 // its directory entry
	certHeader  = 8
	certAlign   = 8
	certVersion = 0x0200
	certPKCS7   = 0x0002
)

// program is where Authenticode looks into a PE file.
type program struct {
	b        []byte
	checksum int // offset
	security int // offset of the directory entry
	headers  int // SizeOfHeaders
	sections []pe.SectionHeader
	certAt   int // 0: not signed
	certLen  int
}

func parse(b []byte) (*program, error) {
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPE, err)
	}
	h, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || h.NumberOfRvaAndSizes < 5 {
		return nil, fmt.Errorf("%w: no 64-bit header with a directory of signatures", ErrPE)
	}
	optional := int(binary.LittleEndian.Uint32(b[0x3c:])) + 4 + 20
	p := &program{b: b, checksum: optional + checksumAt, security: optional + securityAt, headers: int(h.SizeOfHeaders)}
	d := h.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY]
	p.certAt, p.certLen = int(d.VirtualAddress), int(d.Size)
	if p.headers > len(b) || p.headers < p.security+8 || p.certAt > len(b) || p.certLen > len(b)-p.certAt {
		return nil, fmt.Errorf("%w: cut off", ErrPE)
	}
	for _, s := range f.Sections {
		if s.Size > 0 {
			p.sections = append(p.sections, s.SectionHeader)
		}
		if uint64(s.Offset)+uint64(s.Size) > uint64(len(b)) {
			return nil, fmt.Errorf("%w: section %s is cut off", ErrPE, s.Name)
		}
	}
	slices.SortFunc(p.sections, func(a, b pe.SectionHeader) int { return int(int64(a.Offset) - int64(b.Offset)) })
	return p, nil
}

// digest is the Authenticode hash: everything but the checksum, the directory
// entry of the signatures and the signatures.
func (p *program) digest() [32]byte {
	h := sha256.New()
	h.Write(p.b[:p.checksum])
	h.Write(p.b[p.checksum+4 : p.security])
	h.Write(p.b[p.security+8 : p.headers])
	hashed := p.headers
	for _, s := range p.sections {
		h.Write(p.b[s.Offset:][:s.Size])
		hashed += int(s.Size)
	}
	end := len(p.b) - p.certLen
	if hashed < end {
		h.Write(p.b[hashed:end])
	}
	return [32]byte(h.Sum(nil))
}

// Digest is the Authenticode SHA-256 of a program, signed or not: what db and
// dbx name when they name one program.
func Digest(b []byte) ([32]byte, error) {
	p, err := parse(b)
	if err != nil {
		return [32]byte{}, err
	}
	return p.digest(), nil
}

// Sign returns the program with a signature.
func (p Pair) Sign(b []byte) ([]byte, error) {
	// Signatures begin at a multiple of eight; the padding is signed.
	b = append(bytes.Clone(b), make([]byte, -len(b)&(certAlign-1))...)
	prog, err := parse(b)
	if err != nil {
		return nil, err
	}
	if prog.certLen != 0 {
		return nil, fmt.Errorf("%w: sign the program as it was built", ErrSigned)
	}
	digest := prog.digest()
	// SpcIndirectDataContent: a PE image, with the obsolete file name left empty.
	image := tlv(tagSequence, oidPEImage, tlv(tagSequence, tlv(tagBits, []byte{0}), tlv(tagContext0, tlv(tagContext2, []byte{0x80, 0}))))
	inner := append(image, tlv(tagSequence, algorithm(oidSHA256), tlv(tagOctets, digest[:]))...)
	sum := sha256.Sum256(inner)
	data, err := p.signedData(
		tlv(tagSequence, oidIndirectData, tlv(tagContext0, tlv(tagSequence, inner))), sum,
		tlv(tagSequence, oidContentType, tlv(tagSet, oidIndirectData)),
		tlv(tagSequence, oidMessageDigest, tlv(tagSet, tlv(tagOctets, sum[:]))),
	)
	if err != nil {
		return nil, err
	}
	data = tlv(tagSequence, oidSignedData, tlv(tagContext0, data))
	cert := make([]byte, certHeader)
	le := binary.LittleEndian
	le.PutUint32(cert, uint32(certHeader+len(data)))
	le.PutUint16(cert[4:], certVersion)
	le.PutUint16(cert[6:], certPKCS7)
	cert = append(cert, data...)
	cert = append(cert, make([]byte, -len(cert)&(certAlign-1))...)
	le.PutUint32(b[prog.security:], uint32(len(b)))
	le.PutUint32(b[prog.security+4:], uint32(len(cert)))
	return append(b, cert...), nil
}

// Signed says whether a program carries a signature of anybody.
func Signed(b []byte) (bool, error) {
	p, err := parse(b)
	return err == nil && p.certLen > 0, err
}
