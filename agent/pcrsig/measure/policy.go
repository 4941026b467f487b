// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"crypto"

	"github.com/zos-node/zos/agent/pcrsig"
)

// Sign returns the section .pcrsig for a UKI with this register.
func (r Register) Sign(key crypto.Signer) ([]byte, error) {
	return pcrsig.Sign(pcrsig.Register(r), key)
}

// PublicKey returns the section .pcrpkey.
func PublicKey(key crypto.Signer) ([]byte, error) { return pcrsig.PublicKey(key) }

// Verify says whether a .pcrsig by the key of a .pcrpkey is for this value.
func (r Register) Verify(sig, key []byte) error {
	s, err := pcrsig.Decode(sig, key)
	if err != nil {
		return err
	}
	_, err = s.For(pcrsig.Register(r))
	return err
}
