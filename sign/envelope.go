// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/zos-node/zos/spec/strict"
)

const (
	// MaxEnvelope bounds an encoded envelope: the ledger stores the length of
	// an entry in 16 bits.
	MaxEnvelope = 65535
	// MaxSignatures bounds the work that one envelope can cause.
	MaxSignatures = 32
)

// Namespace returns the one SSHSIG namespace for a payload type:
// "application/vnd.zos.deployment.v1+json" is signed under "deployment@zos".
func Namespace(payloadType string) (string, error) {
	name, ok := strings.CutPrefix(payloadType, "application/vnd.zos.")
	name, versioned := strings.CutSuffix(name, ".v1+json")
	if !ok || !versioned || !word(name) {
		return "", strict.Errorf("payloadType", "is %q, want application/vnd.zos.<name>.v1+json", payloadType)
	}
	return name + "@zos", nil
}

// word is what a document type or a role may be called: small letters, digits
// and dashes, at most 32, a letter first.
func word(s string) bool {
	for i, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// PAE is DSSE's pre-authentication encoding: the bytes that are signed. The
// lengths make it impossible to read one (type, payload) pair as another.
func PAE(payloadType string, payload []byte) []byte {
	var b bytes.Buffer
	for _, part := range []string{"DSSEv1", strconv.Itoa(len(payloadType)), payloadType, strconv.Itoa(len(payload))} {
		b.WriteString(part)
		b.WriteByte(' ')
	}
	b.Write(payload)
	return b.Bytes()
}

// DecodeEnvelope reads an envelope, strictly. It checks the form of the
// envelope and of every signature; whether the signatures are right, Keys
// says.
func DecodeEnvelope(b []byte) (*Envelope, error) {
	o, err := Open(b, nil)
	if err != nil {
		return nil, err
	}
	return o.Envelope, nil
}

// Encode writes the envelope; DecodeEnvelope accepts what it returns.
func (e *Envelope) Encode() ([]byte, error) {
	if _, err := e.parse(nil); err != nil {
		return nil, err
	}
	b, err := strict.Encode(e)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxEnvelope {
		return nil, strict.Errorf("", "would have %d bytes as an envelope, at most %d are allowed", len(b), MaxEnvelope)
	}
	return b, nil
}

// parse checks all that can be known without the cryptography: the payload
// type, that each signature is a well-formed SSHSIG in the type's namespace,
// that each keyid is the fingerprint of the key inside, and that no key is
// there twice. Two signatures of one key would be two spellings of the same
// agreement, which somebody might one day count.
func (e *Envelope) parse(c *KeyCache) ([]signature, error) {
	namespace, err := Namespace(e.PayloadType)
	if err != nil {
		return nil, err
	}
	if len(e.Signatures) > MaxSignatures {
		return nil, strict.Errorf("signatures", "has %d entries, at most %d are allowed", len(e.Signatures), MaxSignatures)
	}
	all := make([]signature, 0, len(e.Signatures))
	for i, s := range e.Signatures {
		parsed, err := parseSignature(s.Sig, c)
		at := func() string { return strict.Index("signatures", i) }
		if err != nil {
			return nil, strict.Errorf(strict.Join(at(), "sig"), "%v", err)
		}
		if parsed.namespace != namespace {
			return nil, strict.Errorf(strict.Join(at(), "sig"), "is a signature in namespace %q, want %q for %s", parsed.namespace, namespace, e.PayloadType)
		}
		if s.KeyID != parsed.key.id {
			return nil, strict.Errorf(strict.Join(at(), "keyid"), "is %q, but the signature was made by key %s", s.KeyID, parsed.key.id)
		}
		for first, other := range all {
			if other.key.material == parsed.key.material {
				return nil, strict.Errorf(at(), "is a second signature of the key of signatures[%d]", first)
			}
		}
		all = append(all, parsed)
	}
	return all, nil
}

// Keys verifies every signature and returns the public keys that made them,
// each once, in the envelope's order. One bad signature refuses the whole
// envelope: nobody is to wonder which of them counted.
func (e *Envelope) Keys() ([]string, error) {
	all, err := e.parse(nil)
	if err != nil {
		return nil, err
	}
	return (&Opened{Envelope: e, all: all}).Keys()
}

// Add signs the envelope and appends the signature. The signature is
// verified before it is kept: an agent or a token is not ours.
func (e *Envelope) Add(s Signer) error {
	namespace, err := Namespace(e.PayloadType)
	if err != nil {
		return err
	}
	for _, old := range e.Signatures {
		if old.KeyID == s.KeyID() {
			return fmt.Errorf("key %s has signed this envelope already", s.KeyID())
		}
	}
	raw, err := s.Sign(namespace, PAE(e.PayloadType, e.Payload))
	if err != nil {
		return fmt.Errorf("sign with key %s: %w", s.KeyID(), err)
	}
	longer := Envelope{e.PayloadType, e.Payload, append(append([]Signature{}, e.Signatures...), Signature{s.KeyID(), raw})}
	if _, err := longer.Keys(); err != nil {
		return fmt.Errorf("check the new signature: %w", err)
	}
	e.Signatures = longer.Signatures
	return nil
}
