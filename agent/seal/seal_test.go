// SPDX-License-Identifier: Apache-2.0

package seal

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/zos-node/zos/agent/pcrsig"
	"github.com/zos-node/zos/agent/seal/sealtest"
)

func makers(t *testing.T) (ours, theirs *rsa.PrivateKey) {
	t.Helper()
	ours, err1 := rsa.GenerateKey(rand.Reader, 2048)
	theirs, err2 := rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// painted answers every question for a register in 0 to 7, or for 11, with one
// byte over and over, as TPMs do that do not work.
type painted struct {
	transport.TPM
	with     byte
	firmware bool // 0 to 7, else 11
}

const commandPCRRead = 0x17e

func (p painted) Send(in []byte) ([]byte, error) {
	out, err := p.TPM.Send(in)
	if err == nil && binary.BigEndian.Uint32(in[6:]) == commandPCRRead && len(out) >= 32 {
		selected := binary.BigEndian.Uint32(append([]byte{0}, in[len(in)-3:]...)) // three bytes of bits
		if (selected&0xff0000 != 0) == p.firmware {
			copy(out[len(out)-32:], bytes.Repeat([]byte{p.with}, 32))
		}
	}
	return out, err
}

// TestSealAndUnseal is the table of what opens and what does not. Whatever
// this package refuses by itself, the TPM refuses as well: where a row says tpm,
// the question is put to the TPM without the checks before it.
func TestSealAndUnseal(t *testing.T) {
	ours, theirs := makers(t)
	state, secret := t.TempDir(), []byte("the key of the state partition...")
	boot := func(image string) sealtest.Boot { return sealtest.Boot{Image: image, Firmware: true} }

	tpm, off := sealtest.PowerOn(t, state, boot("X"))
	blob, err := Use(tpm).Seal(boot("X").Sign(t, ours), secret)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(append(blob.Public, blob.Private...), secret) {
		t.Error("it stands there in clear")
	}
	off()

	for _, c := range []struct {
		name   string
		boots  sealtest.Boot
		signed *pcrsig.Signed
		want   error // nil: it opens
		tpm    error // what the TPM by itself comes to
		spoil  func(*Blob)
		other  bool // another TPM
		clear  bool // the TPM is cleared before
	}{
		{name: "the same image", boots: boot("X"), signed: boot("X").Sign(t, ours)},
		{name: "the next image", boots: boot("Y"), signed: boot("Y").Sign(t, ours)},
		{name: "another maker's image", boots: boot("Z"), signed: boot("Z").Sign(t, theirs), want: pcrsig.ErrMaker, tpm: pcrsig.ErrMaker},
		{name: "an altered image with the old signature", boots: boot("W"), signed: boot("X").Sign(t, ours), want: pcrsig.ErrRegister, tpm: pcrsig.ErrRegister},
		{name: "an altered signature", boots: boot("X"), signed: altered(t, boot("X"), ours), want: pcrsig.ErrSignature, tpm: pcrsig.ErrSignature},
		{name: "no image was measured", boots: sealtest.Boot{Firmware: true}, signed: sealtest.Boot{}.Sign(t, ours), want: ErrRegisters},
		{name: "firmware measured nothing", boots: sealtest.Boot{Image: "X"}, signed: boot("X").Sign(t, ours), want: ErrRegisters},
		{name: "another TPM", boots: boot("X"), signed: boot("X").Sign(t, ours), want: ErrOther, tpm: ErrOther, other: true},
		{name: "an altered blob", boots: boot("X"), signed: boot("X").Sign(t, ours), want: ErrOther, tpm: ErrOther, spoil: func(b *Blob) { b.Private[len(b.Private)-1] ^= 1 }},
		{name: "nonsense for a blob", boots: boot("X"), signed: boot("X").Sign(t, ours), want: ErrOther, tpm: ErrOther, spoil: func(b *Blob) { b.Public, b.Private = []byte("x"), nil }},
		// Last: nothing opens after it.
		{name: "the TPM was cleared", boots: boot("X"), signed: boot("X").Sign(t, ours), want: ErrOther, tpm: ErrOther, clear: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, b := state, Blob{Maker: blob.Maker, Public: bytes.Clone(blob.Public), Private: bytes.Clone(blob.Private)}
			if c.other {
				dir = t.TempDir()
			}
			if c.spoil != nil {
				c.spoil(&b)
			}
			raw, off := sealtest.PowerOn(t, dir, c.boots)
			defer off()
			if c.clear {
				sealtest.Clear(t, raw)
			}
			tpm := Use(raw)
			got, err := tpm.Unseal(c.signed, b)
			if !errors.Is(err, c.want) || c.want == nil && !bytes.Equal(got, secret) || c.want != nil && got != nil {
				t.Errorf("%v, want %v", err, c.want)
			}
			if c.tpm == nil {
				return
			}
			key := ours
			if errors.Is(c.tpm, pcrsig.ErrMaker) {
				key = theirs
			}
			claimed, signature := bestLie(t, c.boots, key, c.tpm)
			if got, err := tpm.unseal(c.signed, claimed, signature, b); !errors.Is(err, c.tpm) || got != nil {
				t.Errorf("the TPM by itself: %v, want %v", err, c.tpm)
			}
		})
	}
}

// bestLie is the best that somebody with this key could tell the TPM: what
// register 11 holds, and a signature over it.
func bestLie(t *testing.T, b sealtest.Boot, key *rsa.PrivateKey, want error) (pcrsig.Register, []byte) {
	t.Helper()
	if errors.Is(want, pcrsig.ErrRegister) { // an old one
		b.Image = "X"
	}
	sig, err := b.Sign(t, key).For(b.Register())
	if err != nil {
		t.Fatal(err)
	}
	if errors.Is(want, pcrsig.ErrSignature) {
		sig[7] ^= 1
	}
	return b.Register(), sig
}

// altered is a signature with one bit turned.
func altered(t *testing.T, b sealtest.Boot, key *rsa.PrivateKey) *pcrsig.Signed {
	t.Helper()
	sig, err1 := pcrsig.Sign(b.Register(), key)
	public, err2 := pcrsig.PublicKey(key)
	at := bytes.Index(sig, []byte(`"sig":"`)) + 20
	if sig[at]++; sig[at] > 'z' || sig[at] == '[' || sig[at] == ':' || sig[at] == ',' || sig[at] == '0' {
		sig[at] = 'A'
	}
	s, err3 := pcrsig.Decode(sig, public)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSealRefuses: nothing is sealed that would not be protected, or would not
// open again.
func TestSealRefuses(t *testing.T) {
	ours, _ := makers(t)
	x := sealtest.Boot{Image: "X", Firmware: true}
	good, off := sealtest.PowerOn(t, t.TempDir(), x)
	defer off()
	for _, c := range []struct {
		name   string
		tpm    transport.TPM
		signed *pcrsig.Signed
		want   error
	}{
		{"as it should be", good, x.Sign(t, ours), nil},
		{"register 11 is zero", painted{good, 0, false}, x.Sign(t, ours), ErrRegisters},
		{"register 11 is ones", painted{good, 0xff, false}, x.Sign(t, ours), ErrRegisters},
		{"registers 0 to 7 are zero", painted{good, 0, true}, x.Sign(t, ours), ErrRegisters},
		{"registers 0 to 7 are ones", painted{good, 0xff, true}, x.Sign(t, ours), ErrRegisters},
		{"the image's signature is for another value", good, sealtest.Boot{Image: "Y"}.Sign(t, ours), pcrsig.ErrRegister},
		{"the image's signature is altered", good, altered(t, x, ours), pcrsig.ErrSignature},
	} {
		if _, err := Use(c.tpm).Seal(c.signed, []byte("secret")); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, _, err := Open(t.TempDir() + "/none"); !errors.Is(err, ErrNone) {
		t.Errorf("no TPM: %v", err)
	}
}
