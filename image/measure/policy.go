// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// ErrSignature says that a policy's signature does not fit.
var ErrSignature = errors.New("signature of the measurement does not fit")

// PCR is the register that a UKI is measured into.
const PCR = 11

// Codes of the TPM 2.0 library specification, part 2.
const (
	commandPolicyPCR = 0x17f
	algSHA256        = 0x000b
)

// Policy is the digest of TPM2_PolicyPCR over register 11 of the SHA-256 bank
// while it has this value. Who seals to a key that signs such digests (and not
// to a value) is not locked out by the next image.
func (r Register) Policy() [sha256.Size]byte {
	be := binary.BigEndian
	b := make([]byte, sha256.Size) // an empty policy
	b = be.AppendUint32(b, commandPolicyPCR)
	b = be.AppendUint32(b, 1) // one bank
	b = be.AppendUint16(b, algSHA256)
	selection := make([]byte, 3)
	selection[PCR/8] = 1 << (PCR % 8)
	b = append(append(b, byte(len(selection))), selection...)
	value := sha256.Sum256(r[:])
	return sha256.Sum256(append(b, value[:]...))
}

// signature is one entry of a UKI's section .pcrsig, in systemd's form.
type signature struct {
	PCRs        []int  `json:"pcrs"`
	Fingerprint string `json:"pkfp"` // SHA-256 of the public key (DER), hexadecimal
	Policy      string `json:"pol"`  // hexadecimal
	Signature   []byte `json:"sig"`
}

// Sign returns the section .pcrsig: the policy, signed by key (RSA PKCS #1
// v1.5 with SHA-256, as TPM2_VerifySignature takes it).
func (r Register) Sign(key crypto.Signer) ([]byte, error) {
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("sign the measurement: %w", err)
	}
	policy := r.Policy()
	digest := sha256.Sum256(policy[:])
	sig, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign the measurement: %w", err)
	}
	finger := sha256.Sum256(public)
	return json.Marshal(map[string][]signature{"sha256": {{[]int{PCR}, hex.EncodeToString(finger[:]), hex.EncodeToString(policy[:]), sig}}})
}

// PublicKey returns the section .pcrpkey.
func PublicKey(key crypto.Signer) ([]byte, error) {
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("public key of measurements: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), nil
}

// Verify says whether a .pcrsig by the key of a .pcrpkey is for this value.
func (r Register) Verify(pcrsig, pcrpkey []byte) error {
	block, _ := pem.Decode(pcrpkey)
	if block == nil {
		return fmt.Errorf("%w: .pcrpkey is not PEM", ErrSignature)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("%w: .pcrpkey: %w", ErrSignature, err)
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("%w: .pcrpkey is no RSA key", ErrSignature)
	}
	var banks map[string][]signature
	if err := json.Unmarshal(pcrsig, &banks); err != nil {
		return fmt.Errorf("%w: .pcrsig: %w", ErrSignature, err)
	}
	policy := r.Policy()
	digest := sha256.Sum256(policy[:])
	for _, s := range banks["sha256"] {
		if slices.Equal(s.PCRs, []int{PCR}) && s.Policy == hex.EncodeToString(policy[:]) && rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], s.Signature) == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: no entry for register %d with value %x", ErrSignature, PCR, r)
}
