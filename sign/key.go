// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// key is a public key of a type that we accept.
type key struct{ ssh.PublicKey }

// acceptKey refuses key types that are no signing keys here: RSA and DSA for
// their age, certificates because they bring a second policy with them.
func acceptKey(p ssh.PublicKey) (key, error) {
	switch p.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoSKECDSA256:
		return key{p}, nil
	}
	return key{}, fmt.Errorf("keys of type %s are not accepted, want ed25519 or ecdsa-p256, also on a FIDO token", p.Type())
}

// parseKey reads a public key in its one canonical text form: type, space,
// base64. No options, no comment: these would be two texts for one key.
func parseKey(text string) (key, error) {
	kind, encoded, ok := strings.Cut(text, " ")
	if !ok {
		return key{}, errors.New(`is no public key, want "ssh-ed25519 AAAA…"`)
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return key{}, errors.New(`is no public key without comment, want "ssh-ed25519 AAAA…"`)
	}
	p, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return key{}, fmt.Errorf("is no public key: %w", err)
	}
	k, err := acceptKey(p)
	if err != nil {
		return key{}, err
	}
	if p.Type() != kind || k.String() != text {
		return key{}, errors.New("is not in canonical form")
	}
	return k, nil
}

// plainWire begins the wire form of a plain Ed25519 key; its 32 bytes follow.
const plainWire = "\x00\x00\x00\x0b" + ssh.KeyAlgoED25519 + "\x00\x00\x00\x20"

// plainKey is parseKey for plain Ed25519 keys, which nearly all are, and leaves
// everything else to it, also what is wrong. 51 bytes fill 68 characters of
// base64 to the last bit, so there is one spelling.
func plainKey(text string) (wire [len(plainWire) + ed25519.PublicKeySize]byte, ok bool) {
	encoded, ok := strings.CutPrefix(text, ssh.KeyAlgoED25519+" ")
	if !ok || len(encoded) != base64.StdEncoding.EncodedLen(len(wire)) {
		return wire, false
	}
	n, err := base64.StdEncoding.Strict().Decode(wire[:], []byte(encoded))
	return wire, err == nil && n == len(wire) && strings.HasPrefix(string(wire[:]), plainWire)
}

// fingerprintOf is the fingerprint of a key in its wire form.
func fingerprintOf(wire []byte) string {
	sum := sha256.Sum256(wire)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// String is the authorized_keys form without comment.
func (k key) String() string {
	return k.Type() + " " + base64.StdEncoding.EncodeToString(k.Marshal())
}

// fingerprint is what ssh-keygen -l shows: "SHA256:…".
func (k key) fingerprint() string { return ssh.FingerprintSHA256(k) }

// material is what the private half belongs to. The text of a FIDO key also
// holds an application name, and a raw ed25519 key can be wrapped as one: both
// give one person several public keys to be counted.
func (k key) material() string {
	var sk struct {
		Kind string
		Rest []byte `ssh:"rest"`
	}
	if err := ssh.Unmarshal(k.Marshal(), &sk); err != nil {
		return string(k.Marshal())
	}
	switch k.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519:
		var body struct {
			Point []byte
			Rest  []byte `ssh:"rest"`
		}
		if ssh.Unmarshal(sk.Rest, &body) == nil {
			return "ed25519:" + string(body.Point)
		}
	default:
		var body struct {
			Curve string
			Point []byte
			Rest  []byte `ssh:"rest"`
		}
		if ssh.Unmarshal(sk.Rest, &body) == nil {
			return "ecdsa:" + string(body.Point)
		}
	}
	return string(k.Marshal())
}

// Fingerprint returns the OpenSSH fingerprint of a public key in
// authorized_keys form. For a node's key this is the node's id.
func Fingerprint(publicKey string) (string, error) {
	if wire, ok := plainKey(publicKey); ok {
		return fingerprintOf(wire[:]), nil
	}
	k, err := parseKey(publicKey)
	if err != nil {
		return "", fmt.Errorf("public key %w", err)
	}
	return k.fingerprint(), nil
}

// ParsePublicKeyFile reads the content of a .pub file and returns the key in
// canonical form, without its comment.
func ParsePublicKeyFile(b []byte) (string, error) {
	p, _, options, rest, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return "", fmt.Errorf("no public key: %w", err)
	}
	if len(options) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return "", errors.New("want exactly one public key, without options")
	}
	k, err := acceptKey(p)
	if err != nil {
		return "", err
	}
	return k.String(), nil
}
