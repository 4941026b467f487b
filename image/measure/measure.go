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
package measure

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"errors"
	"fmt"
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
	*r = sha256.Sum256(append(r[:], d[:]...))
}

// UKI is register 11 after the stub of this UKI has run.
func UKI(uki []byte) (Register, error) {
	var r Register
	all, err := Events(uki)
	for _, e := range all {
		r.Extend(e)
	}
	return r, err
}

// Events are what the stub measures, in its order.
func Events(uki []byte) ([][]byte, error) {
	f, err := pe.NewFile(bytes.NewReader(uki))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUKI, err)
	}
	contents := map[string][]byte{}
	for _, s := range f.Sections {
		if slices.Contains(chosen, s.Name) {
			return nil, fmt.Errorf("%w: has a section %s, of which the machine decides what is measured", ErrUKI, s.Name)
		}
		b, err := s.Data()
		if err != nil {
			return nil, fmt.Errorf("%w: section %s: %w", ErrUKI, s.Name, err)
		}
		if _, twice := contents[s.Name]; twice {
			return nil, fmt.Errorf("%w: section %s stands twice", ErrUKI, s.Name)
		}
		// What counts is the length in memory. Sections of the stub's own may have
		// more of it than the file has; none of those is measured.
		contents[s.Name] = b[:min(uint64(s.VirtualSize), uint64(len(b)))]
	}
	if contents[".linux"] == nil {
		return nil, fmt.Errorf("%w: no section .linux", ErrUKI)
	}
	var all [][]byte
	for _, name := range order {
		if c, ok := contents[name]; ok {
			all = append(all, append([]byte(name), 0), c)
		}
	}
	return all, nil
}
