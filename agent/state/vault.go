// SPDX-License-Identifier: Apache-2.0

package state

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"filippo.io/age"

	"github.com/zos-node/zos/agent/luks"
	"github.com/zos-node/zos/agent/pcrsig"
	"github.com/zos-node/zos/agent/recovery"
	"github.com/zos-node/zos/agent/seal"
)

// Kind is who can read the node's key.
type Kind string

// The kinds, as the ledger says them.
const (
	Sealed   Kind = "sealed"   // this TPM, under an image of this maker
	Clear    Kind = "clear"    // whoever has the disk
	Memory   Kind = "memory"   // nobody; it is gone with the next boot
	Recovery Kind = "recovery" // whoever has the recovery key, which opened it this time
)

// Types of the header's tokens. Each stands beside the key slot of its number.
const (
	tokenTPM      = "zos-tpm2"
	tokenClear    = "zos-clear"
	tokenRecovery = "zos-recovery"
)

// Values of the tokens; tokenTPM's is a seal.Blob.
type (
	clearKey struct {
		Key []byte `json:"key"`
		Why string `json:"why"` // what there was no sealing for
	}
	recoveryKey struct {
		// Age is the key slot's passphrase, encrypted to the operators that the
		// seed named at the first boot.
		Age string `json:"age"`
	}
)

// Guard is what this machine and the image that it runs can seal with.
type Guard struct {
	TPM    *seal.TPM // nil: none
	Signed *pcrsig.Signed
	Why    error // why nothing can be sealed here; nil when it can
}

// passphraseBytes of the machine's own key slot.
const passphraseBytes = 32

// errLocked says that a volume does not open here and now. It wraps the reason.
var errLocked = errors.New("the node's state is locked")

// make prepares a new volume on an empty disk. It is nobody's before Commit.
func (g Guard) make(d luks.Disk, to []age.Recipient) (h *luks.Header, key []byte, kind Kind, err error) {
	key = make([]byte, luks.KeySize)
	rand.Read(key)
	if h, err = luks.New(key); err != nil {
		return nil, nil, "", err
	}
	if kind, err = g.add(h, d, key); err != nil {
		return nil, nil, "", err
	}
	if len(to) > 0 {
		text := recovery.NewKey()
		sealed, err := recovery.Encrypt(text, to)
		if err != nil {
			return nil, nil, "", err
		}
		if err := h.Add(d, key, []byte(text), tokenRecovery, recoveryKey{sealed}); err != nil {
			return nil, nil, "", err
		}
	}
	return h, key, kind, nil
}

// add makes the machine's own key slot: sealed where that is possible.
func (g Guard) add(h *luks.Header, d luks.Disk, key []byte) (Kind, error) {
	passphrase := make([]byte, passphraseBytes)
	rand.Read(passphrase)
	if g.Why != nil {
		return Clear, h.Add(d, key, passphrase, tokenClear, clearKey{passphrase, g.Why.Error()})
	}
	blob, err := g.TPM.Seal(g.Signed, passphrase)
	if err != nil {
		return "", err
	}
	return Sealed, h.Add(d, key, passphrase, tokenTPM, blob)
}

// open opens a volume with what the machine itself has.
func (g Guard) open(d luks.Disk, h *luks.Header) (key []byte, kind Kind, err error) {
	if h.Token(tokenTPM) != nil {
		key, err := g.unseal(d, h)
		if err != nil {
			return nil, "", fmt.Errorf("%w: %w", errLocked, err)
		}
		return key, Sealed, nil
	}
	if raw := h.Token(tokenClear); raw != nil {
		var c clearKey
		if err := json.Unmarshal(raw, &c); err != nil {
			return nil, "", fmt.Errorf("%w: token %s: %w", luks.ErrHeader, tokenClear, err)
		}
		key, err := h.Unlock(d, tokenClear, c.Key)
		if err != nil {
			return nil, "", fmt.Errorf("%w: %w", errLocked, err)
		}
		return key, Clear, nil
	}
	return nil, "", fmt.Errorf("%w: it has no key slot of this machine", errLocked)
}

// blob is what the TPM sealed.
func blob(h *luks.Header) (seal.Blob, error) {
	var b seal.Blob
	if err := json.Unmarshal(h.Token(tokenTPM), &b); err != nil {
		return b, fmt.Errorf("%w: token %s: %w", luks.ErrHeader, tokenTPM, err)
	}
	return b, nil
}

func (g Guard) unseal(d luks.Disk, h *luks.Header) ([]byte, error) {
	b, err := blob(h)
	if err != nil {
		return nil, err
	}
	if g.TPM == nil || g.Signed == nil {
		return nil, g.Why
	}
	passphrase, err := g.TPM.Unseal(g.Signed, b)
	if err != nil {
		return nil, err
	}
	return h.Unlock(d, tokenTPM, passphrase)
}

// recover opens a volume by its recovery key, and seals it to this machine where
// that is possible. Where it is not, the volume stays as it was: a key in clear
// is for disks that had nothing better from the beginning.
func (g Guard) recover(d luks.Disk, text string) (key []byte, kind Kind, err error) {
	h, err := luks.Read(d)
	if err != nil {
		return nil, "", err
	}
	if key, err = h.Unlock(d, tokenRecovery, []byte(text)); err != nil {
		return nil, "", err
	}
	if g.Why != nil {
		return key, Recovery, nil
	}
	h.Remove(tokenTPM)
	if kind, err = g.add(h, d, key); err != nil {
		return nil, "", err
	}
	return key, kind, h.Commit(d)
}
