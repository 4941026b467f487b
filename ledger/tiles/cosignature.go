// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// Types of note keys (C2SP signed-note).
const (
	keyEd25519     = 1 // Ed25519 over the text
	keyCosignature = 4 // Ed25519 cosignature/v1: over the text and the time of signing
)

// stamp is the length of the time in front of a cosignature: Unix seconds.
const stamp = 8

// cosignatureKey is a key for Ed25519 cosignatures (C2SP tlog-cosignature,
// cosignature/v1) as a note.Verifier. It is written here rather than taken from
// a library because a node links it, and the libraries bring ML-DSA along.
type cosignatureKey struct {
	name string
	id   uint32
	key  ed25519.PublicKey
}

func (k *cosignatureKey) Name() string    { return k.name }
func (k *cosignatureKey) KeyHash() uint32 { return k.id }

// Verify says whether sig is a time and a signature of it and of the text.
func (k *cosignatureKey) Verify(text, sig []byte) bool {
	return len(sig) == stamp+ed25519.SignatureSize && binary.BigEndian.Uint64(sig) <= math.MaxInt64 &&
		ed25519.Verify(k.key, cosigned(binary.BigEndian.Uint64(sig), text), sig[stamp:])
}

// cosigned is what a cosigner signs at a time.
func cosigned(at uint64, text []byte) []byte {
	return fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text)
}

// cosignedAt is the time in a cosignature that Verify accepted, Unix seconds.
func cosignedAt(s note.Signature) (int64, error) {
	b, err := base64.StdEncoding.DecodeString(s.Base64)
	if err != nil || len(b) < 4+stamp { // the key's id is before it
		return 0, errors.New("has no time")
	}
	return int64(binary.BigEndian.Uint64(b[4:])), nil
}

// cosigner signs as a cosignatureKey.
type cosigner struct {
	cosignatureKey
	private ed25519.PrivateKey
	now     func() time.Time
}

func (c *cosigner) Sign(text []byte) ([]byte, error) {
	at := uint64(c.now().Unix())
	sig := binary.BigEndian.AppendUint64(nil, at)
	return append(sig, ed25519.Sign(c.private, cosigned(at, text))...), nil
}

// newCosigner takes the signer key of a plain Ed25519 note key.
func newCosigner(skey string) (*cosigner, error) {
	rest, ok := strings.CutPrefix(skey, "PRIVATE+KEY+")
	if !ok {
		return nil, errors.New("is no note signer key")
	}
	name, id, kind, seed, err := splitKey(rest)
	if err != nil {
		return nil, err
	}
	if kind != keyEd25519 || len(seed) != ed25519.SeedSize {
		return nil, errors.New("is no Ed25519 key")
	}
	private := ed25519.NewKeyFromSeed(seed)
	public := private.Public().(ed25519.PublicKey)
	if id != keyID(name, kind, public) {
		return nil, errors.New("its id is not that of its name and key")
	}
	return &cosigner{cosignatureKey{name, keyID(name, keyCosignature, public), public}, private, time.Now}, nil
}

// newCosignatureKey takes the vkey of an Ed25519 key of one type, in its one
// spelling.
func newCosignatureKey(vkey string, want byte) (*cosignatureKey, error) {
	name, id, kind, key, err := splitKey(vkey)
	if err != nil {
		return nil, err
	}
	if kind != want || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("is of type %d with %d bytes, want type %d with %d", kind, len(key), want, ed25519.PublicKeySize)
	}
	if formatKey(name, kind, key) != vkey {
		return nil, errors.New("its id is not that of its name and key, or it is not in its canonical spelling")
	}
	return &cosignatureKey{name, id, key}, nil
}

// splitKey takes "NAME+ID+BASE64" apart; the first byte in the base64 is the
// key's type.
func splitKey(s string) (name string, id uint32, kind byte, key []byte, err error) {
	parts := strings.SplitN(s, "+", 3) // base64 may have a plus
	if len(parts) != 3 || parts[0] == "" || !utf8.ValidString(parts[0]) || strings.ContainsFunc(parts[0], unicode.IsSpace) {
		return "", 0, 0, nil, errors.New("is not NAME+ID+KEY")
	}
	n, err := strconv.ParseUint(parts[1], 16, 32)
	if err != nil || len(parts[1]) != 8 {
		return "", 0, 0, nil, fmt.Errorf("its id %q is not eight hexadecimal digits", parts[1])
	}
	key, err = base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) == 0 {
		return "", 0, 0, nil, errors.New("its key is not in base64")
	}
	return parts[0], uint32(n), key[0], key[1:], nil
}

// CosignerKey is the vkey to put into a policy for a plain Ed25519 note key.
func CosignerKey(vkey string) (string, error) {
	k, err := newCosignatureKey(vkey, keyEd25519)
	if err != nil {
		return "", fmt.Errorf("cosigner key %q: %w", vkey, err)
	}
	return formatKey(k.name, keyCosignature, k.key), nil
}

func formatKey(name string, kind byte, key []byte) string {
	return fmt.Sprintf("%s+%08x+%s", name, keyID(name, kind, key), base64.StdEncoding.EncodeToString(append([]byte{kind}, key...)))
}

// keyID is the first four bytes of SHA-256 of name, line feed, type and key.
func keyID(name string, kind byte, key []byte) uint32 {
	sum := sha256.Sum256(append(append([]byte(name+"\n"), kind), key...))
	return binary.BigEndian.Uint32(sum[:])
}
