// SPDX-License-Identifier: Apache-2.0

package measure_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"testing"

	"github.com/zos-node/zos/agent/pcrsig"
	"github.com/zos-node/zos/agent/pcrsig/measure"
	"github.com/zos-node/zos/image/imagetest"
)

// TestOpens: what is sealed to a maker opens under what that maker signed, as it
// is. agent/seal has the same table with a TPM.
func TestOpens(t *testing.T) {
	const version, board = "1.0", "pc-x86_64"
	kernel := []byte("the kernel of the image")
	ours, err1 := rsa.GenerateKey(rand.Reader, 2048)
	theirs, err2 := rsa.GenerateKey(rand.Reader, 2048)
	good, err3 := imagetest.Measured(version, board, kernel, ours)
	foreign, err4 := imagetest.Measured(version, board, kernel, theirs)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	public, err1 := measure.PublicKey(ours)
	register, err2 := measure.UKI(bytes.NewReader(good))
	sig, err3 := register.Sign(ours)
	s, err4 := pcrsig.Decode(sig, public)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	maker := s.Fingerprint
	key := imagetest.Section{Name: ".pcrpkey", Data: public}
	with := func(more ...imagetest.Section) []byte { return imagetest.UKI(version, board, kernel, more...) }
	signed := func(sig []byte) imagetest.Section { return imagetest.Section{Name: ".pcrsig", Data: sig} }
	turned := bytes.Replace(sig, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1)
	altered := bytes.Clone(good)
	altered[bytes.Index(altered, kernel)] ^= 1
	for name, c := range map[string]struct {
		uki  []byte
		want error
	}{
		"as signed":                         {good, nil},
		"put together again":                {with(key, signed(sig)), nil},
		"another maker's":                   {foreign, pcrsig.ErrMaker},
		"nothing signed":                    {with(), pcrsig.ErrNone},
		"a key without a signature":         {with(key), pcrsig.ErrNone},
		"a signature without a key":         {with(signed(sig)), pcrsig.ErrNone},
		"another kernel":                    {altered, pcrsig.ErrRegister},
		"an altered signature":              {with(key, signed(turned)), pcrsig.ErrSignature},
		"a signature of another register":   {with(key, signed(bytes.Replace(sig, []byte("[11]"), []byte("[12]"), 1))), pcrsig.ErrRegister},
		"nonsense for a signature":          {with(key, signed([]byte("junk"))), pcrsig.ErrSignature},
		"nonsense for a key":                {with(imagetest.Section{Name: ".pcrpkey", Data: []byte("junk")}, signed(sig)), pcrsig.ErrSignature},
		"more than the node would read":     {with(key, signed(append(bytes.Clone(sig), bytes.Repeat([]byte(" "), pcrsig.MaxFile)...))), pcrsig.ErrSignature},
		"something that nobody can foresee": {with(key, signed(sig), imagetest.Section{Name: ".profile", Data: []byte("x")}), measure.ErrUKI},
		"two of them":                       {with(key, signed(turned), signed(sig)), measure.ErrUKI},
		"cut off":                           {good[:len(good)-0x400], measure.ErrUKI},
		"no UKI":                            {[]byte("junk"), measure.ErrUKI},
	} {
		if err := measure.Opens(bytes.NewReader(c.uki), maker); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
