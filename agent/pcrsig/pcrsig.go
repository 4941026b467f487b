// SPDX-License-Identifier: Apache-2.0

// Package pcrsig is the signed word of an image's maker about what a TPM holds
// after that image was started. systemd's stub measures a UKI into register 11;
// the UKI carries a public key (section .pcrpkey) and signatures by it over the
// TPM policy "register 11 has this value" (section .pcrsig, in systemd's JSON).
// What is sealed to the key, and not to a value, opens under every image that
// the key signed: an update locks nobody out.
//
// pcrsig/measure makes what the two sections hold, agent/seal uses them; both know
// the form from here.
package pcrsig

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
	"os"
	"path/filepath"
	"slices"
)

// Where the initramfs has what the stub found in its own UKI.
const (
	Dir           = "/.extra"
	signatureFile = "tpm2-pcr-signature.json"
	keyFile       = "tpm2-pcr-public-key.pem"
)

// PCR is the register that a UKI is measured into.
const PCR = 11

// MaxFile bounds both, in bytes; real ones have a few hundred.
const MaxFile = 64 << 10

var (
	// ErrNone says that an image carries no signed measurement.
	ErrNone = errors.New("this image carries no signed measurement: build it with keys (zos node keys)")
	// ErrSignature says that a signed measurement is damaged, or is not by the key
	// beside it.
	ErrSignature = errors.New("signature of the measurement does not fit")
	// ErrRegister says that a signed measurement is for another value than the one
	// that a TPM holds.
	ErrRegister = errors.New("register 11 does not hold what the image's maker signed")
	// ErrMaker says that something is sealed for the images of another maker.
	ErrMaker = errors.New("sealed for images of another maker")
)

// Codes of the TPM 2.0 library specification, part 2.
const (
	commandPolicyPCR = 0x17f
	algSHA256        = 0x000b
)

// Register is the value of a SHA-256 PCR.
type Register [sha256.Size]byte

// Policy is the digest of TPM2_PolicyPCR over register 11 of the SHA-256 bank
// while it has this value.
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

// entry is one signature of a .pcrsig.
type entry struct {
	PCRs        []int  `json:"pcrs"`
	Fingerprint string `json:"pkfp"` // SHA-256 of the public key (DER), hexadecimal
	Policy      string `json:"pol"`  // hexadecimal
	Signature   []byte `json:"sig"`
}

// Sign returns the section .pcrsig: the policy, signed by key (RSA PKCS #1
// v1.5 with SHA-256, as TPM2_VerifySignature takes it).
func Sign(r Register, key crypto.Signer) ([]byte, error) {
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
	return json.Marshal(map[string][]entry{"sha256": {{[]int{PCR}, fingerprint(public), hex.EncodeToString(policy[:]), sig}}})
}

// PublicKey returns the section .pcrpkey.
func PublicKey(key crypto.Signer) ([]byte, error) {
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("public key of measurements: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), nil
}

// Signed is what an image carries.
type Signed struct {
	Key         *rsa.PublicKey
	Fingerprint string // of the key: SHA-256 of its DER, hexadecimal
	entries     []entry
}

// Decode reads the two sections. Nothing is said yet about what is signed.
func Decode(pcrsig, pcrpkey []byte) (*Signed, error) {
	block, _ := pem.Decode(pcrpkey)
	if block == nil {
		return nil, fmt.Errorf("%w: .pcrpkey is not PEM", ErrSignature)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: .pcrpkey: %w", ErrSignature, err)
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: .pcrpkey is no RSA key", ErrSignature)
	}
	var banks map[string][]entry
	if err := json.Unmarshal(pcrsig, &banks); err != nil {
		return nil, fmt.Errorf("%w: .pcrsig: %w", ErrSignature, err)
	}
	return &Signed{public, fingerprint(block.Bytes), banks["sha256"]}, nil
}

// Load reads what the stub put into the initramfs.
func Load(dir string) (*Signed, error) {
	var parts [2][]byte
	for i, name := range []string{signatureFile, keyFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			return nil, ErrNone
		}
		if err == nil && info.Size() > MaxFile {
			return nil, fmt.Errorf("%w: %s has %d bytes", ErrSignature, name, info.Size())
		}
		if err == nil {
			parts[i], err = os.ReadFile(filepath.Join(dir, name))
		}
		if err != nil {
			return nil, fmt.Errorf("signed measurement: %w", err)
		}
	}
	return Decode(parts[0], parts[1])
}

// By wants the image to be of a maker, whose key has this fingerprint; else it is
// ErrMaker.
func (s *Signed) By(maker string) error {
	if s.Fingerprint != maker {
		return fmt.Errorf("%w: it wants key %s, this image was signed by %s", ErrMaker, short(maker), short(s.Fingerprint))
	}
	return nil
}

func short(fingerprint string) string { return fingerprint[:min(len(fingerprint), 16)] }

// For returns the signature for a register's value, verified.
func (s *Signed) For(r Register) ([]byte, error) {
	policy := r.Policy()
	digest := sha256.Sum256(policy[:])
	for _, e := range s.entries {
		if !slices.Equal(e.PCRs, []int{PCR}) || e.Policy != hex.EncodeToString(policy[:]) {
			continue
		}
		if err := rsa.VerifyPKCS1v15(s.Key, crypto.SHA256, digest[:], e.Signature); err != nil {
			return nil, fmt.Errorf("%w: register %d with value %x: %w", ErrSignature, PCR, r, err)
		}
		return e.Signature, nil
	}
	return nil, fmt.Errorf("%w: it is %x", ErrRegister, r)
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
