// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// TestPublicKeyHasOneText: whoever can write a key in two ways can be counted
// twice.
func TestPublicKeyHasOneText(t *testing.T) {
	good := newKey(t).PublicKey()
	_, body, _ := strings.Cut(good, " ")
	raw, err := base64.StdEncoding.DecodeString(body)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.StdEncoding.EncodeToString
	if _, err := Fingerprint(good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, why string }{
		"no space":         {"ssh-ed25519", `is no public key, want "ssh-ed25519 AAAA…"`},
		"no base64":        {"ssh-ed25519 ####", "without comment"},
		"no key":           {"ssh-ed25519 AAAA", "is no public key: "},
		"half a key":       {"ssh-ed25519 " + encode(raw[:len(raw)-1]), "is no public key: "},
		"trailing bytes":   {"ssh-ed25519 " + encode(append(bytes.Clone(raw), 0)), "is no public key: "},
		"line break":       {good[:40] + "\n" + good[40:], "not in canonical form"},
		"carriage return":  {good + "\r", "not in canonical form"},
		"another type":     {"ecdsa-sha2-nistp256 " + body, "not in canonical form"},
		"type in capitals": {"SSH-ED25519 " + body, "not in canonical form"},
	} {
		if id, err := Fingerprint(c.text); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %q, %v, want it to say %q", name, id, err, c.why)
		}
	}
}

// spellSig writes the fields of an SSHSIG, also those that there is one
// choice for.
func spellSig(s *sshsig.Signature, reserved, hash string) []byte {
	return append([]byte("SSHSIG"), ssh.Marshal(struct {
		Version                               uint32
		Key, Namespace, Reserved, Hash, Bytes string
	}{1, string(s.PublicKey.Marshal()), s.Namespace, reserved, hash, string(ssh.Marshal(s.Signature))})...)
}

// TestPlainKeyAgrees: the short way to the fingerprint of a plain key takes what
// the library takes, and comes to the same, whichever character is another one.
func TestPlainKeyAgrees(t *testing.T) {
	good := newKey(t).PublicKey()
	taken := 0
	for at := range len(good) + 1 {
		for _, c := range []string{"", "A", "B", "/", "+", "=", "-", " ", "\n", "\r", "\x00", "é"} {
			for _, text := range []string{good[:at] + c + good[at:], good[:at] + c + good[min(at+1, len(good)):], good[:at] + c} {
				wire, short := plainKey(text)
				k, err := parseKey(text)
				if long := err == nil && k.Type() == "ssh-ed25519"; short != long {
					t.Fatalf("%q: the short way says %v, the long one %v", text, short, err)
				} else if short {
					taken++
					if got := fingerprintOf(wire[:]); got != k.fingerprint() {
						t.Fatalf("%q: %s, want %s", text, got, k.fingerprint())
					}
				}
			}
		}
	}
	if taken < 40 {
		t.Errorf("%d keys were taken", taken)
	}
}

// TestSignatureHasOneForm: what ssh-keygen would take as well, and we do not.
func TestSignatureHasOneForm(t *testing.T) {
	signer := newKey(t)
	raw := sealed(t, "payload", signer).Signatures[0].Sig
	s, err := sshsig.ParseSignature(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(spellSig(s, "", "sha512"), raw) {
		t.Fatal("the test spells signatures otherwise")
	}
	with := func(sig []byte) error {
		_, err := (&Envelope{PayloadType: deploymentType, Payload: []byte("payload"), Signatures: []Signature{{signer.KeyID(), sig}}}).Encode()
		return err
	}
	if err := with(raw); err != nil {
		t.Fatal(err)
	}
	refused(t, with(spellSig(s, "x", "sha512")), "signatures[0].sig", "non-canonical form")
	refused(t, with(spellSig(s, "", "sha256")), "signatures[0].sig", "uses sha256, want sha512")
	refused(t, with(append(bytes.Clone(raw), 0)), "signatures[0].sig", "")

	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	old, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	byRSA, err := signSSH(old, "deployment@zos", PAE(deploymentType, []byte("payload")))
	if err != nil {
		t.Fatal(err)
	}
	refused(t, with(byRSA), "signatures[0].sig", "ssh-rsa are not accepted")
	if _, err := newFileSigner(old); err == nil || !strings.Contains(err.Error(), "not accepted") {
		t.Errorf("an RSA key signs: %v", err)
	}
}

func TestNamespaceLength(t *testing.T) {
	for n, ok := range map[int]bool{1: true, 32: true, 33: false} {
		if _, err := Namespace("application/vnd.zos." + strings.Repeat("a", n) + ".v1+json"); (err == nil) != ok {
			t.Errorf("%d letters: %v", n, err)
		}
	}
	for _, bad := range []string{"deployment.v1+json", "application/vnd.zos.deployment", "application/vnd.zos.1a.v1+json", "application/vnd.zos.-a.v1+json"} {
		if got, err := Namespace(bad); err == nil {
			t.Errorf("%q is signed under %q", bad, got)
		}
	}
}

// TestAddSaysWhy: each refusal is of its own cause, and nothing is asked of a
// signer that could not count.
func TestAddSaysWhy(t *testing.T) {
	a, b := newKey(t), newKey(t)
	never := func(string, []byte) ([]byte, error) { t.Error("a signer was asked"); return nil, nil }
	for name, c := range map[string]struct {
		e   *Envelope
		s   Signer
		why string
	}{
		"twice":       {sealed(t, "payload", a), lying{a, a.KeyID(), never}, "has signed this envelope already"},
		"no document": {&Envelope{PayloadType: "text/plain"}, lying{a, a.KeyID(), never}, "payloadType"},
		"token gone":  {sealed(t, "payload", a), lying{b, b.KeyID(), func(string, []byte) ([]byte, error) { return nil, errors.New("token gone") }}, "token gone"},
	} {
		if err := c.e.Add(c.s); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v, want %q", name, err, c.why)
		}
	}
}

// TestCheckRefusesItsOwnPolicy: a policy that does not hold together lets
// nothing pass.
func TestCheckRefusesItsOwnPolicy(t *testing.T) {
	k := newKey(t).PublicKey()
	for _, shared := range []bool{true, false} {
		p := Policy{Roles: map[string]Role{"author": {[]string{k}, 0}}, SharedKeys: shared}
		if got, err := p.Check([]string{k}, []string{"author"}); err == nil || !strings.Contains(err.Error(), "threshold") {
			t.Errorf("a threshold of zero: %v, %v", got, err)
		}
	}
}

func TestSignersRefuseKeys(t *testing.T) {
	if _, err := ParseSigner([]byte("junk")); err == nil || !strings.Contains(err.Error(), "private key") {
		t.Errorf("junk: %v", err)
	}
	if _, err := NewSigner(make(ed25519.PrivateKey, ed25519.PrivateKeySize-1)); err == nil {
		t.Error("half a key signs")
	}
}
