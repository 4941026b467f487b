// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/zos-node/zos/spec/strict"
)

// Opened is an envelope whose form was checked, and that of every signature.
// It stands for the envelope as it was then.
type Opened struct {
	Envelope *Envelope
	raw      []byte
	sure     bool // that it is canonical
	all      []signature
}

// Open is DecodeEnvelope for who wants to know more: Canonical and Keys take
// nothing apart a second time. A nil KeyCache is as good as any.
func Open(b []byte, c *KeyCache) (*Opened, error) {
	e, sure := decodeCanonical(b)
	if !sure {
		e = new(Envelope)
		if err := strict.Decode(b, e, MaxEnvelope); err != nil {
			return nil, err
		}
	}
	all, err := e.parse(c)
	if err != nil {
		return nil, err
	}
	return &Opened{e, b, sure, all}, nil
}

// Canonical says whether the bytes are those that Encode writes.
func (o *Opened) Canonical() (bool, error) {
	if o.sure {
		return true, nil
	}
	same, err := o.Envelope.Encode()
	return err == nil && bytes.Equal(same, o.raw), err
}

// Keys is Envelope.Keys. Signatures are verified side by side.
func (o *Opened) Keys() ([]string, error) {
	if len(o.all) == 0 {
		return []string{}, nil
	}
	message := PAE(o.Envelope.PayloadType, o.Envelope.Payload)
	signed := signedBySSH(o.all[0].namespace, message) // they share it, as parse made sure
	wrong := make([]error, len(o.all))
	var others sync.WaitGroup
	for i, s := range o.all[1:] {
		others.Go(func() { wrong[i+1] = s.verify(message, signed) })
	}
	wrong[0] = o.all[0].verify(message, signed)
	others.Wait()
	keys := make([]string, 0, len(o.all))
	for i, s := range o.all {
		if err := wrong[i]; err != nil {
			return nil, strict.Errorf(strict.Join(strict.Index("signatures", i), "sig"), "of key %s is wrong for this payload: %v", s.key.id, err)
		}
		keys = append(keys, s.key.text)
	}
	return keys, nil
}

// signature is a parsed SSHSIG: of a plain Ed25519 key, as nearly all are, or
// of another one, which other holds whole.
type signature struct {
	namespace string
	key       *knownKey
	plain     []byte
	other     *sshsig.Signature
}

// parseSignature reads a binary SSHSIG. It must encode again to the same
// bytes, so that nobody can spell one signature in two ways, and must use
// SHA-512, the default of ssh-keygen.
func parseSignature(b []byte, c *KeyCache) (signature, error) {
	if s, ok := parsePlain(b, c); ok {
		return s, nil
	}
	s, err := sshsig.ParseSignature(b)
	if err != nil {
		return signature{}, fmt.Errorf("is no SSHSIG: %w", err)
	}
	k, err := acceptKey(s.PublicKey)
	if err != nil {
		return signature{}, err
	}
	if s.HashAlgorithm != sshsig.HashSHA512 {
		return signature{}, fmt.Errorf("uses %s, want %s", s.HashAlgorithm, sshsig.HashSHA512)
	}
	if !bytes.Equal(s.Marshal(), b) {
		return signature{}, errors.New("is an SSHSIG in non-canonical form")
	}
	return signature{namespace: s.Namespace, key: &knownKey{text: k.String(), id: k.fingerprint(), material: k.material()}, other: s}, nil
}

// What stands in a SSHSIG of a plain Ed25519 key before the key, and after the
// namespace: lengths, "ssh-ed25519", nothing reserved, "sha512".
const (
	plainHead = "SSHSIG\x00\x00\x00\x01\x00\x00\x00\x33\x00\x00\x00\x0b" + ssh.KeyAlgoED25519 + "\x00\x00\x00\x20"
	plainTail = "\x00\x00\x00\x00\x00\x00\x00\x06sha512\x00\x00\x00\x53\x00\x00\x00\x0b" + ssh.KeyAlgoED25519 + "\x00\x00\x00\x40"
)

// parsePlain reads such a one in its one form, and leaves everything else,
// also what is wrong, to the library.
func parsePlain(b []byte, c *KeyCache) (signature, bool) {
	rest, ok := strings.CutPrefix(string(b), plainHead)
	if !ok || len(rest) < ed25519.PublicKeySize+4 {
		return signature{}, false
	}
	p, rest := point([]byte(rest[:ed25519.PublicKeySize])), rest[ed25519.PublicKeySize:]
	n := uint64(binary.BigEndian.Uint32([]byte(rest[:4])))
	if rest = rest[4:]; uint64(len(rest)) != n+uint64(len(plainTail))+ed25519.SignatureSize {
		return signature{}, false
	}
	sig, ok := strings.CutPrefix(rest[n:], plainTail)
	if !ok {
		return signature{}, false
	}
	return signature{namespace: rest[:n], key: c.get(p), plain: []byte(sig)}, true
}

// verify checks the signature over the message, in the namespace that it
// names and parse has compared. signed is what signedBySSH makes of the two.
func (s signature) verify(message, signed []byte) error {
	if s.plain == nil {
		return sshsig.Verify(bytes.NewReader(message), s.other, s.other.PublicKey, sshsig.HashSHA512, s.namespace)
	}
	if !ed25519.Verify(s.key.point[:], signed, s.plain) {
		return errors.New("ssh: signature did not verify") // as the library says it
	}
	return nil
}

// signedBySSH is what a SSHSIG signs for a message, by PROTOCOL.sshsig.
func signedBySSH(namespace string, message []byte) []byte {
	sum := sha512.Sum512(message)
	b := appendString([]byte("SSHSIG"), namespace)
	b = appendString(b, "") // reserved
	b = appendString(b, "sha512")
	return appendString(b, string(sum[:]))
}

// appendString appends an SSH string: its length in four bytes, and itself.
func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}
