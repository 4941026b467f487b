// SPDX-License-Identifier: Apache-2.0

package edtable

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

// smallOrder are encodings of points of small order, canonical and not: keys
// and R for which verifiers are known to disagree.
var smallOrder = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"0100000000000000000000000000000000000000000000000000000000000080",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// agree holds Verify against crypto/ed25519 for one input.
func agree(t testing.TB, base *Base, public, message, sig []byte) bool {
	t.Helper()
	k, err := NewKey(base, public)
	if err != nil {
		k = nil
	}
	return same(t, k, public, message, sig)
}

// same is agree for a key that was read already; nil is one that could not be.
func same(t testing.TB, k *Key, public, message, sig []byte) bool {
	t.Helper()
	want := len(public) == ed25519.PublicKeySize && ed25519.Verify(public, message, sig)
	got := k != nil && k.Verify(message, sig)
	if got != want {
		t.Errorf("key %x, message %x, signature %x: %v, crypto/ed25519 says %v", public, message, sig, got, want)
	}
	return want
}

func TestAgreesWithTheStandardLibrary(t *testing.T) {
	base := NewBase()
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	for range 20 {
		private := ed25519.NewKeyFromSeed(random(32))
		public := []byte(private.Public().(ed25519.PublicKey))
		message := random(rng.IntN(300))
		sig := ed25519.Sign(private, message)
		k, err := NewKey(base, public)
		if err != nil || !same(t, k, public, message, sig) {
			t.Fatalf("a right signature was refused: %v", err)
		}
		for range 10 {
			bad := bytes.Clone(sig)
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
			if same(t, k, public, message, bad) {
				t.Fatal("a wrong signature was accepted")
			}
		}
		same(t, k, public, append(message, 0), sig)
		agree(t, base, random(32), message, sig)
		same(t, k, public, message, sig[:63])
		// S plus the order of the group: the same number, spelt in another way.
		order, _ := hex.DecodeString("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
		twice, carry := bytes.Clone(sig), 0
		for i := range order {
			n := int(twice[32+i]) + int(order[i]) + carry
			twice[32+i], carry = byte(n), n>>8
		}
		if same(t, k, public, message, twice) {
			t.Fatal("S beyond the order was accepted")
		}
	}
}

func TestAgreesOnPointsOfSmallOrder(t *testing.T) {
	base := NewBase()
	accepted := 0
	for _, a := range smallOrder {
		public, _ := hex.DecodeString(a)
		k, err := NewKey(base, public)
		if err != nil {
			k = nil
		}
		for _, r := range smallOrder {
			first, _ := hex.DecodeString(r)
			for i := range 8 {
				if same(t, k, public, []byte{byte(i)}, append(first, make([]byte, 32)...)) {
					accepted++
				}
			}
		}
	}
	if accepted == 0 {
		t.Error("none was accepted by either, so nothing was compared")
	}
}

func FuzzAgrees(f *testing.F) {
	base := NewBase()
	private := ed25519.NewKeyFromSeed(make([]byte, 32))
	public := []byte(private.Public().(ed25519.PublicKey))
	f.Add(public, []byte("message"), ed25519.Sign(private, []byte("message")))
	for _, s := range smallOrder {
		b, _ := hex.DecodeString(s)
		f.Add(b, []byte{0}, append(bytes.Clone(b), make([]byte, 32)...))
	}
	f.Fuzz(func(t *testing.T, public, message, sig []byte) { agree(t, base, public, message, sig) })
}

func BenchmarkVerify(b *testing.B) {
	private := ed25519.NewKeyFromSeed(make([]byte, 32))
	public := []byte(private.Public().(ed25519.PublicKey))
	message := make([]byte, 130)
	sig := ed25519.Sign(private, message)
	k, err := NewKey(NewBase(), public)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("table", func(b *testing.B) {
		for b.Loop() {
			if !k.Verify(message, sig) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("crypto/ed25519", func(b *testing.B) {
		for b.Loop() {
			if !ed25519.Verify(public, message, sig) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("new key", func(b *testing.B) {
		for b.Loop() {
			if _, err := NewKey(k.base, public); err != nil {
				b.Fatal(err)
			}
		}
	})
}
