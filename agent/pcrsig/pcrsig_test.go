// SPDX-License-Identifier: Apache-2.0

package pcrsig

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestSigned(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	r, other := Register{1}, Register{2}
	sections := func(key *rsa.PrivateKey) (sig, public []byte) {
		sig, err1 := Sign(r, key)
		public, err2 := PublicKey(key)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return sig, public
	}
	sig, public := sections(key)
	_, theirs := sections(foreign)
	for _, c := range []struct {
		name        string
		sig, public []byte
		value       Register
		want        error
	}{
		{"as signed", sig, public, r, nil},
		{"another value", sig, public, other, ErrRegister},
		{"another key", sig, theirs, r, ErrSignature},
		{"no key", sig, nil, r, ErrSignature},
		{"no signature", nil, public, r, ErrSignature},
		{"nothing signed", []byte("{}"), public, r, ErrRegister},
		{"altered", bytes.Replace(sig, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1), public, r, ErrSignature},
		{"another register", bytes.Replace(sig, []byte(`[11]`), []byte(`[12]`), 1), public, r, ErrRegister},
	} {
		s, err := Decode(c.sig, c.public)
		if err == nil {
			_, err = s.For(c.value)
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	dir := t.TempDir()
	if _, err := Load(dir); !errors.Is(err, ErrNone) {
		t.Errorf("an image without: %v", err)
	}
	for name, b := range map[string][]byte{signatureFile: sig, keyFile: public} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.For(r); err != nil {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		f.Fatal(err)
	}
	public, err := PublicKey(key)
	if err != nil {
		f.Fatal(err)
	}
	sig, err := Sign(Register{1}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sig)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b, public)
		if err != nil {
			return
		}
		if _, err := s.For(Register{2}); err == nil {
			t.Error("a value that nobody signed")
		}
	})
}
