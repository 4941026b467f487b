// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"testing"
)

func TestVerify(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := PublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var r, other Register
	other.Extend([]byte("x"))
	sig, err := r.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(sig, public); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"another value": other.Verify(sig, public), "no key": r.Verify(sig, nil), "no signature": r.Verify(nil, public), "altered": r.Verify(bytes.Replace(sig, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1), public),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
