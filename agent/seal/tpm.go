// SPDX-License-Identifier: Apache-2.0

package seal

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/go-tpm/tpm2"

	"github.com/zos-node/zos/agent/pcrsig"
)

// nonce is the size of a session's, in bytes.
const nonce = 16

func exists(device string) error {
	_, err := os.Stat(device)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	}
	if err != nil {
		return fmt.Errorf("TPM: %w", err)
	}
	return nil
}

// load shows the TPM the public key of the image's maker.
func (t *TPM) load(by *pcrsig.Signed) (tpm2.NamedHandle, error) {
	loaded, err := tpm2.LoadExternal{Hierarchy: tpm2.TPMRHOwner, InPublic: tpm2.New2B(publicKey(by.Key))}.Execute(t.t)
	if err != nil {
		return tpm2.NamedHandle{}, fmt.Errorf("TPM: key of the image's maker: %w", err)
	}
	return tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name}, nil
}

// publicKey is an RSA key as the TPM takes it: every field counts for its name,
// and with it for what is sealed to it.
func publicKey(key *rsa.PublicKey) tpm2.TPMTPublic {
	exponent := uint32(key.E)
	if key.E == 65537 {
		exponent = 0 // as the specification has it
	}
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: tpm2.TPMAObject{SignEncrypt: true, UserWithAuth: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Scheme:  tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})},
			KeyBits: tpm2.TPMKeyBits(key.N.BitLen()), Exponent: exponent,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.Bytes()}),
	}
}

// policyOf is "whatever the key of this name authorizes".
func (t *TPM) policyOf(name tpm2.TPM2BName) (tpm2.TPM2BDigest, error) {
	trial, end, err := tpm2.PolicySession(t.t, tpm2.TPMAlgSHA256, nonce, tpm2.Trial())
	if err != nil {
		return tpm2.TPM2BDigest{}, fmt.Errorf("TPM: trial session: %w", err)
	}
	defer end() // ended by the kernel at the latest
	if _, err := (tpm2.PolicyAuthorize{PolicySession: trial.Handle(), KeySign: name,
		CheckTicket: tpm2.TPMTTKVerified{Tag: tpm2.TPMSTVerified, Hierarchy: tpm2.TPMRHOwner}}).Execute(t.t); err != nil {
		return tpm2.TPM2BDigest{}, fmt.Errorf("TPM: policy of the image's maker: %w", err)
	}
	got, err := tpm2.PolicyGetDigest{PolicySession: trial.Handle()}.Execute(t.t)
	if err != nil {
		return tpm2.TPM2BDigest{}, fmt.Errorf("TPM: policy of the image's maker: %w", err)
	}
	return got.PolicyDigest, nil
}

// parent is the storage root key of the TCG's template: made anew each time, the
// same for as long as the TPM is not cleared.
func (t *TPM) parent() (tpm2.NamedHandle, tpm2.TPMTPublic, error) {
	p, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t.t)
	if err != nil {
		return tpm2.NamedHandle{}, tpm2.TPMTPublic{}, fmt.Errorf("TPM: storage root key: %w", err)
	}
	public, err := p.OutPublic.Contents()
	if err != nil {
		return tpm2.NamedHandle{}, tpm2.TPMTPublic{}, fmt.Errorf("TPM: storage root key: %w", err)
	}
	return tpm2.NamedHandle{Handle: p.ObjectHandle, Name: p.Name}, *public, nil
}

// flush makes room in the TPM; the kernel's resource manager does so at the
// latest when the device is closed.
func (t *TPM) flush(h tpm2.TPMHandle) {
	_, _ = tpm2.FlushContext{FlushHandle: h}.Execute(t.t)
}
