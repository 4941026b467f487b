// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"debug/pe"
	"fmt"
	"io"

	"github.com/zos-node/zos/agent/pcrsig"
)

// Opens says why what is sealed to a maker would stay sealed under a UKI, and nil
// when it would open: the UKI carries that maker's key, and a signature by it over
// what the UKI itself will leave in register 11. maker is the key's fingerprint,
// as in pcrsig.Signed. The errors are those of agent/seal, which a TPM would come
// to: pcrsig.ErrNone, ErrMaker, ErrRegister, ErrSignature; and ErrUKI.
func Opens(uki io.ReaderAt, maker string) error {
	f, err := open(uki)
	if err != nil {
		return err
	}
	sig, err := section(f, ".pcrsig")
	if err != nil {
		return err
	}
	key, err := section(f, ".pcrpkey")
	if err != nil {
		return err
	}
	s, err := pcrsig.Decode(sig, key)
	if err != nil {
		return err
	}
	if err := s.By(maker); err != nil {
		return err
	}
	r, err := UKI(uki)
	if err != nil {
		return err
	}
	_, err = s.For(pcrsig.Register(r))
	return err
}

// section is one of the two that a signed measurement has.
func section(f *pe.File, name string) ([]byte, error) {
	s := f.Section(name)
	if s == nil {
		return nil, pcrsig.ErrNone
	}
	if s.VirtualSize > pcrsig.MaxFile {
		return nil, fmt.Errorf("%w: %s has %d bytes", pcrsig.ErrSignature, name, s.VirtualSize)
	}
	b, err := io.ReadAll(content(s))
	if err != nil {
		return nil, fmt.Errorf("%w: section %s: %w", ErrUKI, name, err)
	}
	return b, nil
}
