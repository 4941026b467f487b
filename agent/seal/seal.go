// SPDX-License-Identifier: Apache-2.0

// Package seal keeps a small secret with the machine's TPM. It comes out again
// only on this TPM, and only while register 11 holds what the key of the image's
// maker has signed (agent/pcrsig): under this image, and under every other of the
// same maker, so that an update locks nobody out.
//
// The TPM itself enforces this, whatever this program says. What is checked here
// first is there for the operator's sake, so that a refusal names its reason, and
// because a TPM that measured nothing would seal without any protection.
//
// Register 11 alone says which image was started, not that the firmware would
// have refused another program, which could measure the same into it: that is
// what Secure Boot is for, and a node says whether it is on.
package seal

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"github.com/zos-node/zos/agent/pcrsig"
)

// Device is the kernel's TPM with its resource manager.
const Device = "/dev/tpmrm0"

var (
	// ErrNone says that this machine has no TPM.
	ErrNone = errors.New("this machine has no TPM 2.0")
	// ErrRegisters says that a TPM's registers vouch for nothing.
	ErrRegisters = errors.New("the TPM's registers vouch for nothing")
	// ErrOther says that another TPM sealed this, or this one before it was cleared.
	ErrOther = errors.New("another TPM sealed this, or this one was cleared since")
)

// Blob is a sealed secret. It may be seen by anybody.
type Blob struct {
	Maker   string `json:"maker"`   // fingerprint of the key that signs measurements
	Public  []byte `json:"public"`  // TPMT_PUBLIC
	Private []byte `json:"private"` // TPM2B_PRIVATE's content, encrypted by the TPM
}

// TPM is one that answers.
type TPM struct{ t transport.TPM }

// Open opens the machine's. ErrNone is told from every other failure.
func Open(device string) (*TPM, func() error, error) {
	if err := exists(device); err != nil {
		return nil, nil, err
	}
	t, err := linuxtpm.Open(device)
	if err != nil {
		return nil, nil, fmt.Errorf("TPM: %w", err)
	}
	return &TPM{t}, t.Close, nil
}

// Use is for a TPM that was opened elsewhere.
func Use(t transport.TPM) *TPM { return &TPM{t} }

// firmwareRegisters are what firmware measures itself and its choices into.
var firmwareRegisters = []uint{0, 1, 2, 3, 4, 5, 6, 7}

// Register reads register 11, and refuses a TPM into which nobody measured, or
// which answers with nothing but ones.
func (t *TPM) Register() (pcrsig.Register, error) {
	all, err := t.read(append([]uint{pcrsig.PCR}, firmwareRegisters...)...)
	if err != nil {
		return pcrsig.Register{}, err
	}
	own := all[pcrsig.PCR]
	if constant(own, 0) {
		return own, fmt.Errorf("%w: register %d is zero: the image was not measured; start it through its UEFI stub", ErrRegisters, pcrsig.PCR)
	}
	if constant(own, 0xff) {
		return own, fmt.Errorf("%w: register %d is all ones: the TPM does not work", ErrRegisters, pcrsig.PCR)
	}
	for _, v := range []byte{0, 0xff} {
		same := true
		for _, n := range firmwareRegisters {
			same = same && constant(all[n], v)
		}
		if same {
			return own, fmt.Errorf("%w: registers 0 to 7 are all %#02x: the firmware measures nothing; switch the TPM on in its menu", ErrRegisters, v)
		}
	}
	return own, nil
}

func constant(r pcrsig.Register, v byte) bool {
	for _, b := range r {
		if b != v {
			return false
		}
	}
	return true
}

// read asks for one register at a time: a TPM may give fewer than were asked
// for.
func (t *TPM) read(numbers ...uint) (map[uint]pcrsig.Register, error) {
	all := map[uint]pcrsig.Register{}
	for _, n := range numbers {
		got, err := tpm2.PCRRead{PCRSelectionIn: selection(n)}.Execute(t.t)
		if err != nil {
			return nil, fmt.Errorf("TPM: read register %d: %w", n, err)
		}
		var r pcrsig.Register
		if d := got.PCRValues.Digests; len(d) != 1 || len(d[0].Buffer) != len(r) {
			return nil, fmt.Errorf("%w: it has no SHA-256 register %d", ErrRegisters, n)
		}
		copy(r[:], got.PCRValues.Digests[0].Buffer)
		all[n] = r
	}
	return all, nil
}

func selection(n uint) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(n)}}}
}

// Seal seals a secret for the maker of the image that runs. It refuses when that
// image could not unseal it: its registers or its signature do not fit.
func (t *TPM) Seal(by *pcrsig.Signed, secret []byte) (Blob, error) {
	r, err := t.Register()
	if err != nil {
		return Blob{}, err
	}
	if _, err := by.For(r); err != nil {
		return Blob{}, err
	}
	maker, err := t.load(by)
	if err != nil {
		return Blob{}, err
	}
	defer t.flush(maker.Handle)
	policy, err := t.policyOf(maker.Name)
	if err != nil {
		return Blob{}, err
	}
	parent, public, err := t.parent()
	if err != nil {
		return Blob{}, err
	}
	defer t.flush(parent.Handle)
	made, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: parent.Handle, Name: parent.Name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, nonce, tpm2.AESEncryption(128, tpm2.EncryptIn), tpm2.Salted(parent.Handle, public))},
		InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret})}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
			// No password opens it, and wrong tries do not lock the TPM.
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true}, AuthPolicy: policy}),
	}.Execute(t.t)
	if err != nil {
		return Blob{}, fmt.Errorf("TPM: seal: %w", err)
	}
	return Blob{Maker: by.Fingerprint, Public: made.OutPublic.Bytes(), Private: made.OutPrivate.Buffer}, nil
}

// Unseal gives the secret back, or says why not: ErrRegisters, pcrsig.ErrMaker,
// ErrOther, pcrsig.ErrRegister or pcrsig.ErrSignature.
func (t *TPM) Unseal(by *pcrsig.Signed, b Blob) ([]byte, error) {
	r, err := t.Register()
	if err != nil {
		return nil, err
	}
	signature, err := by.For(r)
	if err != nil {
		return nil, err
	}
	if err := by.By(b.Maker); err != nil {
		return nil, err
	}
	return t.unseal(by, r, signature, b)
}

// unseal leaves the decision to the TPM.
func (t *TPM) unseal(by *pcrsig.Signed, r pcrsig.Register, signature []byte, b Blob) ([]byte, error) {
	parent, public, err := t.parent()
	if err != nil {
		return nil, err
	}
	defer t.flush(parent.Handle)
	object, err := tpm2.Load{ParentHandle: parent, InPrivate: tpm2.TPM2BPrivate{Buffer: b.Private}, InPublic: tpm2.BytesAs2B[tpm2.TPMTPublic](b.Public)}.Execute(t.t)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrOther, err)
	}
	defer t.flush(object.ObjectHandle)
	maker, err := t.load(by)
	if err != nil {
		return nil, err
	}
	defer t.flush(maker.Handle)
	policy := r.Policy()
	digest := sha256.Sum256(policy[:])
	ticket, err := tpm2.VerifySignature{KeyHandle: maker.Handle, Digest: tpm2.TPM2BDigest{Buffer: digest[:]}, Signature: tpm2.TPMTSignature{
		SigAlg:    tpm2.TPMAlgRSASSA,
		Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA, &tpm2.TPMSSignatureRSA{Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: signature}}),
	}}.Execute(t.t)
	if err != nil {
		return nil, fmt.Errorf("%w: the TPM says: %w", pcrsig.ErrSignature, err)
	}
	session, end, err := tpm2.PolicySession(t.t, tpm2.TPMAlgSHA256, nonce, tpm2.AESEncryption(128, tpm2.EncryptOut), tpm2.Salted(parent.Handle, public))
	if err != nil {
		return nil, fmt.Errorf("TPM: policy session: %w", err)
	}
	defer end() // ended by the kernel at the latest
	if _, err := (tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: selection(pcrsig.PCR)}).Execute(t.t); err != nil {
		return nil, fmt.Errorf("TPM: policy of register %d: %w", pcrsig.PCR, err)
	}
	if _, err := (tpm2.PolicyAuthorize{PolicySession: session.Handle(), ApprovedPolicy: tpm2.TPM2BDigest{Buffer: policy[:]}, KeySign: maker.Name, CheckTicket: ticket.Validation}).Execute(t.t); err != nil {
		return nil, fmt.Errorf("%w: the TPM says: %w", pcrsig.ErrRegister, err)
	}
	got, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.ObjectHandle, Name: object.Name, Auth: session}}.Execute(t.t)
	if errors.Is(err, tpm2.TPMRCPolicyFail) {
		return nil, fmt.Errorf("%w: the TPM says: %w", pcrsig.ErrMaker, err)
	}
	if err != nil {
		return nil, fmt.Errorf("TPM: unseal: %w", err)
	}
	return got.OutData.Buffer, nil
}
