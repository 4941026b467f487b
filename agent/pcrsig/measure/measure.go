// SPDX-License-Identifier: Apache-2.0

// Package measure predicts what a TPM holds after systemd's stub has started a
// UKI: register 11 of the SHA-256 bank. The stub measures each section that it
// uses, first its name with the NUL behind it, then its content, in the order
// of systemd's table and not of the file (systemd, src/fundamental/uki.h):
//
//	register = SHA-256(register ‖ SHA-256(name, NUL))
//	register = SHA-256(register ‖ SHA-256(content))
//
// A signature of the program or of the prediction is no part of it. What comes
// from outside the UKI (a command line, credentials) is in registers 12 and 13.
//
// A build signs the prediction; a node makes it again for an update, to know
// whether its state would open under it, before it is written.
package measure

import (
	"crypto/sha256"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"slices"
)

// ErrUKI says that bytes are no UKI.
var ErrUKI = errors.New("not a UKI")

// order is systemd's; .pcrsig, which signs the result, is not measured.
var order = []string{
	".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey",
}

// chosen are sections of which the stub takes some and others not, by the
// machine that it finds, so that nothing can be predicted.
var chosen = []string{".profile", ".dtbauto", ".hwids", ".efifw"}

// Register is a SHA-256 PCR.
type Register [sha256.Size]byte

// Extend is what a TPM does with a measurement of data.
func (r *Register) Extend(data []byte) {
	d := sha256.Sum256(data)
	r.extend(d[:])
}

func (r *Register) extend(digest []byte) { *r = sha256.Sum256(append(r[:], digest...)) }

// UKI is register 11 after the stub of this UKI has run. What is read of it is
// never in memory as a whole.
func UKI(uki io.ReaderAt) (Register, error) {
	var r Register
	f, err := open(uki)
	if err != nil {
		return r, err
	}
	for _, name := range order {
		s := f.Section(name)
		if s == nil {
			continue
		}
		r.Extend(append([]byte(name), 0))
		h := sha256.New()
		if _, err := io.Copy(h, content(s)); err != nil {
			return Register{}, fmt.Errorf("%w: section %s: %w", ErrUKI, name, err)
		}
		r.extend(h.Sum(nil))
	}
	return r, nil
}

// open reads the table of sections, and refuses one of which it cannot be said
// what is measured.
func open(uki io.ReaderAt) (*pe.File, error) {
	f, err := pe.NewFile(uki)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUKI, err)
	}
	seen := map[string]bool{}
	for _, s := range f.Sections {
		if slices.Contains(chosen, s.Name) {
			return nil, fmt.Errorf("%w: has a section %s, of which the machine decides what is measured", ErrUKI, s.Name)
		}
		if seen[s.Name] {
			return nil, fmt.Errorf("%w: section %s stands twice", ErrUKI, s.Name)
		}
		seen[s.Name] = true
	}
	if !seen[".linux"] {
		return nil, fmt.Errorf("%w: no section .linux", ErrUKI)
	}
	return f, nil
}

// content is what counts of a section: its length in memory. Sections of the
// stub's own may have more of it than the file has; none of those is measured.
func content(s *pe.Section) io.Reader {
	n := int64(min(s.VirtualSize, s.Size))
	return &whole{io.NewSectionReader(s, 0, n), n}
}

// whole fails where a file ends before its section does.
type whole struct {
	r    io.Reader
	left int64
}

func (w *whole) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	w.left -= int64(n)
	if errors.Is(err, io.EOF) && w.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
