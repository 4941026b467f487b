// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"math"
	"strings"
	"testing"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

// TestCosignaturesAgree: what we sign, the library of transparency.dev takes,
// and the other way round; it makes the same keys and reads the same times.
func TestCosignaturesAgree(t *testing.T) {
	for range 20 { // keys with and without a plus in their base64
		skey, plain, err := note.GenerateKey(rand.Reader, "test.example/log/v1")
		if err != nil {
			t.Fatal(err)
		}
		vkey, err := CosignerKey(plain)
		if want, e := fnote.VKeyToCosignatureV1(plain); err != nil || e != nil || vkey != want {
			t.Fatalf("key %q, want %q: %v, %v", vkey, want, err, e)
		}
		verifier, err := newCosignatureKey(vkey, keyCosignature)
		if err != nil {
			t.Fatal(err)
		}
		judge, err := fnote.NewVerifierForCosignatureV1(vkey)
		if err != nil || judge.Name() != verifier.Name() || judge.KeyHash() != verifier.KeyHash() {
			t.Fatalf("%s %08x, want %s %08x: %v", verifier.Name(), verifier.KeyHash(), judge.Name(), judge.KeyHash(), err)
		}
		ours, err := newCosigner(skey)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := fnote.NewSignerForCosignatureV1(skey)
		if err != nil {
			t.Fatal(err)
		}
		for _, signer := range []note.Signer{ours, theirs} {
			signed, err := note.Sign(&note.Note{Text: "test.example/log\n7\nAAAA\n"}, signer)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range []note.Verifier{verifier, judge} {
				n, err := note.Open(signed, note.VerifierList(v))
				if err != nil {
					t.Fatalf("%T signed, %T refused: %v", signer, v, err)
				}
				at, err := cosignedAt(n.Sigs[0])
				if want, e := fnote.CoSigV1Timestamp(n.Sigs[0]); err != nil || e != nil || at != want.Unix() {
					t.Errorf("signed at %d, want %s: %v, %v", at, want, err, e)
				}
			}
		}
	}
}

// TestCosignaturesRefused: no other time, length or text.
func TestCosignaturesRefused(t *testing.T) {
	skey, _, err := note.GenerateKey(rand.Reader, "v1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCosigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("log\n7\nAAAA\n")
	sig, err := c.Sign(text)
	if err != nil || !c.Verify(text, sig) {
		t.Fatal(err)
	}
	for i := range sig {
		sig[i] ^= 1
		if c.Verify(text, sig) {
			t.Errorf("byte %d does not matter", i)
		}
		sig[i] ^= 1
	}
	if c.Verify(text[1:], sig) || c.Verify(text, sig[1:]) || c.Verify(text, append(sig, 0)) || c.Verify(text, nil) {
		t.Error("another text or length was accepted")
	}
	late := uint64(math.MaxInt64) + 1
	sig = append([]byte{128, 0, 0, 0, 0, 0, 0, 0}, ed25519.Sign(c.private, cosigned(late, text))...)
	if c.Verify(text, sig) {
		t.Error("a time that does not fit in 63 bits was accepted")
	}
	if _, err := cosignedAt(note.Signature{Base64: "AAAA"}); err == nil {
		t.Error("a signature without a time has one")
	}
}

func TestKeysRefused(t *testing.T) {
	skey, plain, err := note.GenerateKey(rand.Reader, "v1")
	if err != nil {
		t.Fatal(err)
	}
	good, err := CosignerKey(plain)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(good, "+")
	id, data, _ := strings.Cut(rest, "+")
	for _, c := range []struct{ key, why string }{
		{"", "is not NAME+ID+KEY"},
		{"v1+" + id, "is not NAME+ID+KEY"},
		{"+" + rest, "is not NAME+ID+KEY"},
		{"v 1+" + rest, "is not NAME+ID+KEY"},
		{"v\xff+" + rest, "is not NAME+ID+KEY"},
		{"v1+1234567+" + data, "eight hexadecimal"},
		{"v1+1234567x+" + data, "eight hexadecimal"},
		{"v1+" + id + "+", "base64"},
		{"v1+" + id + "+!", "base64"},
		{plain, "is of type 1"},
		{formatKey("v1", keyCosignature, make([]byte, 31)), "with 31 bytes"},
		{formatKey("v1", 6, make([]byte, 1312)), "is of type 6 with 1312 bytes"},
		{"v2+" + rest, "its id"},
		{"v1+" + id + "+\n" + data, "canonical"},
	} {
		_, err := newCosignatureKey(c.key, keyCosignature)
		said(t, c.key, err, c.why)
	}
	if _, err := CosignerKey(good); err == nil {
		t.Error("made a cosigner's key of one")
	}
	for _, c := range []struct{ key, why string }{
		{plain, "is no note signer key"},
		{"PRIVATE+KEY+v1", "is not NAME"},
		{"PRIVATE+KEY+" + good, "is no Ed25519 key"},
		{"PRIVATE+KEY+v1+" + id + "+" + base64.StdEncoding.EncodeToString(make([]byte, 9)), "is no Ed25519 key"},
		{strings.Replace(skey, "+v1+", "+v2+", 1), "its id"},
	} {
		_, err := newCosigner(c.key)
		said(t, c.key, err, c.why)
	}
}

// FuzzCosignatureKey: what we take as a key, the library takes as the same one.
func FuzzCosignatureKey(f *testing.F) {
	policy, _ := keys(f)
	f.Add(policy.Cosigners[0])
	f.Add("v1+00000000+BAAA")
	f.Fuzz(func(t *testing.T, vkey string) {
		k, err := newCosignatureKey(vkey, keyCosignature)
		if err != nil {
			return
		}
		judge, err := fnote.NewVerifierForCosignatureV1(vkey)
		if err != nil || judge.Name() != k.Name() || judge.KeyHash() != k.KeyHash() {
			t.Errorf("%q: %v", vkey, err)
		}
	})
}
