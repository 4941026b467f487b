// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/zos-node/zos/sign/edtable"
)

// KeyCache remembers the keys that it meets in signatures, and of those that
// sign again and again what makes verifying faster: on a ledger the same keys
// have signed thousands of entries. It never remembers that a signature is
// right. The result is the same with and without; a nil KeyCache remembers
// nothing. Several goroutines may use one.
type KeyCache struct {
	mu     sync.Mutex
	keys   map[point]*cached
	base   *edtable.Base
	tables int
}

type point = [ed25519.PublicKeySize]byte

type cached struct {
	key   *knownKey
	seen  int
	table *edtable.Key // nil until it was seen often
}

// How many keys a KeyCache holds before it begins anew (2 MB), how often one has to
// be seen for a table, and how many of those there may be (21 MB).
const (
	maxKeys   = 8192
	oftenSeen = 32
	maxTables = 128
)

// NewKeyCache makes an empty one.
func NewKeyCache() *KeyCache { return &KeyCache{keys: map[point]*cached{}} }

// knownKey is a key in the forms in which it is compared: what key.String,
// key.fingerprint and key.material say of it.
type knownKey struct {
	text, id, material string
	point              point // of a plain Ed25519 key
}

// get is the plain Ed25519 key of a point, and its table, if it has one.
func (c *KeyCache) get(p point) (*knownKey, *edtable.Key) {
	if c == nil {
		return newKnownKey(p), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.keys[p]
	if k == nil {
		if len(c.keys) >= maxKeys {
			clear(c.keys)
			c.tables = 0
		}
		k = &cached{key: newKnownKey(p)}
		c.keys[p] = k
	}
	if k.seen++; k.seen == oftenSeen && c.tables < maxTables {
		if c.base == nil {
			c.base = edtable.NewBase()
		}
		// Without a table, a key that is no point refuses every signature, too.
		if t, err := edtable.NewKey(c.base, p[:]); err == nil {
			k.table = t
			c.tables++
		}
	}
	return k.key, k.table
}

func newKnownKey(p point) *knownKey {
	wire := appendString(appendString(nil, ssh.KeyAlgoED25519), string(p[:]))
	sum := sha256.Sum256(wire)
	return &knownKey{
		text:     ssh.KeyAlgoED25519 + " " + base64.StdEncoding.EncodeToString(wire),
		id:       "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:]),
		material: "ed25519:" + string(p[:]),
		point:    p,
	}
}
