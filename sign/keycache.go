// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"crypto/ed25519"
	"encoding/base64"
	"sync"

	"golang.org/x/crypto/ssh"
)

// KeyCache remembers the keys that it meets in signatures, in the forms in which
// they are compared: on a ledger the same keys have signed thousands of entries.
// It never remembers that a signature is right. The result is the same with and
// without; a nil KeyCache remembers nothing. Several goroutines may use one.
type KeyCache struct {
	mu   sync.Mutex
	keys map[point]*knownKey
}

type point = [ed25519.PublicKeySize]byte

// maxKeys is how many keys a KeyCache holds before it begins anew (2 MB).
const maxKeys = 8192

// NewKeyCache makes an empty one.
func NewKeyCache() *KeyCache { return &KeyCache{keys: map[point]*knownKey{}} }

// knownKey is a key in the forms in which it is compared: what key.String,
// key.fingerprint and key.material say of it.
type knownKey struct {
	text, id, material string
	point              point // of a plain Ed25519 key
}

// get is the plain Ed25519 key of a point.
func (c *KeyCache) get(p point) *knownKey {
	if c == nil {
		return newKnownKey(p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.keys[p]
	if k == nil {
		if len(c.keys) >= maxKeys {
			clear(c.keys)
		}
		k = newKnownKey(p)
		c.keys[p] = k
	}
	return k
}

func newKnownKey(p point) *knownKey {
	wire := appendString(appendString(nil, ssh.KeyAlgoED25519), string(p[:]))
	return &knownKey{
		text:     ssh.KeyAlgoED25519 + " " + base64.StdEncoding.EncodeToString(wire),
		id:       fingerprintOf(wire),
		material: "ed25519:" + string(p[:]),
		point:    p,
	}
}
