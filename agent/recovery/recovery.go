// SPDX-License-Identifier: Apache-2.0

// Package recovery is the way to a node's state when its TPM does not give the
// key any more: the machine died, the TPM was cleared, the image's maker lost a
// key. A second key, made at the first boot, is encrypted to operators' public
// keys that the node's seed names; the result lies on the node's own disk, where
// age (its file format, age-encryption.org/v1) and cryptsetup get at it without
// anything of ours.
package recovery

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
)

// keyBytes is how much there is to guess.
const keyBytes = 32

// groupSize is what an eye takes in at once.
const groupSize = 4

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewKey is text that people can type: 52 letters and digits in groups
// of four.
func NewKey() string {
	b := make([]byte, keyBytes)
	rand.Read(b)
	s := base32Lower.EncodeToString(b)
	var groups []string
	for part := range slices.Chunk([]byte(s), groupSize) {
		groups = append(groups, string(part))
	}
	return strings.Join(groups, "-")
}

// Parse reads a key as people hand it over: spaces around it, capital letters and
// a line end are not part of it.
func Parse(b []byte) (string, error) {
	s := strings.ToLower(strings.TrimSpace(string(b)))
	if raw, err := base32Lower.DecodeString(strings.ReplaceAll(s, "-", "")); err != nil || len(raw) != keyBytes {
		return "", errors.New("this is no recovery key: want 13 groups of four letters and digits, with - between")
	}
	return s, nil
}

// MaxRecipients bounds a seed's list: the header of a volume has to hold the
// result.
const MaxRecipients = 8

// Recipients reads the public keys of those who may recover: age's own
// ("age1…"), or SSH's of the types ssh-ed25519 and ssh-rsa.
func Recipients(keys []string) ([]age.Recipient, error) {
	var all []age.Recipient
	for i, k := range keys {
		var r age.Recipient
		var err error
		if strings.HasPrefix(k, "age1") {
			r, err = age.ParseX25519Recipient(k)
		} else {
			r, err = agessh.ParseRecipient(k)
		}
		if err != nil {
			return nil, fmt.Errorf("recovery key of operator %d: %w", i+1, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// Encrypt makes a text that only its recipients read, in age's armoured form.
func Encrypt(text string, to []age.Recipient) (string, error) {
	var b bytes.Buffer
	a := armor.NewWriter(&b)
	w, err := age.Encrypt(a, to...)
	if err != nil {
		return "", fmt.Errorf("encrypt the recovery key: %w", err)
	}
	_, err = io.WriteString(w, text)
	if err := errors.Join(err, w.Close(), a.Close()); err != nil {
		return "", fmt.Errorf("encrypt the recovery key: %w", err)
	}
	return b.String(), nil
}
