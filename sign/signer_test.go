// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestLoadSigner(t *testing.T) {
	s, text, err := GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	write(t, path, text)
	back, err := LoadSigner(path, func() ([]byte, error) { return nil, errors.New("must not be asked") })
	if err != nil || back.PublicKey() != s.PublicKey() || back.KeyID() != s.KeyID() {
		t.Errorf("key came back as %v, %v", back, err)
	}
	if id, err := Fingerprint(s.PublicKey()); err != nil || id != s.KeyID() || !strings.HasPrefix(id, "SHA256:") {
		t.Errorf("fingerprint %q, %v, want %q", id, err, s.KeyID())
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSigner(path, nil); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read gave %v", err)
	}
	if _, err := LoadSigner(filepath.Join(dir, "absent"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no key gave %v", err)
	}
	write(t, filepath.Join(dir, "junk"), []byte("junk"))
	if _, err := LoadSigner(filepath.Join(dir, "junk"), nil); err == nil {
		t.Error("junk is a key")
	}
	if _, err := NewSigner(ed25519.PrivateKey{1, 2, 3}); err == nil {
		t.Error("three bytes are a key")
	}
}

func TestPassphrase(t *testing.T) {
	needs(t, "ssh-keygen")
	path, public := keyFile(t, "ed25519", "right")
	for name, ask := range map[string]func() ([]byte, error){
		"nobody to ask": nil,
		"wrong":         func() ([]byte, error) { return []byte("wrong"), nil },
		"no answer":     func() ([]byte, error) { return nil, errors.New("no terminal") },
	} {
		if _, err := LoadSigner(path, ask); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	secret := []byte("right")
	s, err := LoadSigner(path, func() ([]byte, error) { return secret, nil })
	if err != nil || s.PublicKey() != public {
		t.Errorf("got %v, %v", s, err)
	}
	if string(secret) == "right" {
		t.Error("the passphrase stayed in memory")
	}
}

func TestAgentSigner(t *testing.T) {
	needs(t, "ssh-agent", "ssh-add", "ssh-keygen")
	public := newKey(t).PublicKey()
	for name, c := range map[string]struct{ socket, key, want string }{
		"no agent":      {"", public, "SSH_AUTH_SOCK"},
		"gone":          {filepath.Join(t.TempDir(), "gone"), public, "reach the ssh-agent"},
		"not in it":     {sshAgent(t), public, "does not hold key SHA256:"},
		"no public key": {"x", "me", "no public key"},
	} {
		if _, err := AgentSigner(c.socket, c.key); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestParsePublicKeyFile(t *testing.T) {
	k := newKey(t).PublicKey()
	for in, ok := range map[string]bool{
		k: true, k + "\n": true, k + " me@home\n": true, "# mine\n" + k + "\n": true,
		"": false, "junk": false, k + "\n" + k + "\n": false, `command="x" ` + k: false, rsaKey(t): false,
	} {
		got, err := ParsePublicKeyFile([]byte(in))
		if ok && (err != nil || got != k) || !ok && err == nil {
			t.Errorf("%q gave %q, %v", in, got, err)
		}
	}
}

// token signs like a FIDO key: over the application, the touch flag and a
// counter.
type token struct {
	public  ssh.PublicKey
	private ed25519.PrivateKey
	flags   byte
}

func (k token) PublicKey() ssh.PublicKey { return k.public }

func (k token) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	app, message := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	rest := []byte{k.flags, 0, 0, 0, 7}
	signed := append(append(append([]byte{}, app[:]...), rest...), message[:]...)
	return &ssh.Signature{Format: k.public.Type(), Blob: ed25519.Sign(k.private, signed), Rest: rest}, nil
}

// TestToken: signatures of FIDO keys count, and only with a touch.
func TestToken(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	k, err := parseKey(asToken(t, plain.PublicKey()))
	if err != nil {
		t.Fatal(err)
	}
	touched, err := newFileSigner(token{k.PublicKey, private, 1})
	if err != nil {
		t.Fatal(err)
	}
	e := sealed(t, "payload", touched)
	if keys, err := e.Keys(); err != nil || len(keys) != 1 || !strings.HasPrefix(keys[0], ssh.KeyAlgoSKED25519+" ") {
		t.Errorf("signed by %v, %v", keys, err)
	}
	// The same private half once more, under the plain type.
	if err := e.Add(plain); err == nil || !strings.Contains(err.Error(), "second signature of the key") {
		t.Errorf("one key in two forms was added: %v", err)
	}
	untouched, err := newFileSigner(token{k.PublicKey, private, 0})
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Envelope{PayloadType: deploymentType}).Add(untouched); err == nil {
		t.Error("a signature without a touch was taken")
	}
}
