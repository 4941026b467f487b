// SPDX-License-Identifier: Apache-2.0

// Package luks writes and opens the header of an encrypted volume: LUKS2, the
// form that cryptsetup reads and writes, so that an operator with a recovery
// key needs nothing of ours to get at the data (LUKS2 on-disk format
// specification, version 1.1).
//
// It writes one kind of header and reads no other: AES-XTS with 512-bit keys,
// sectors of 4096 bytes, data from DataOffset on, and up to four key slots.
// Every passphrase is a random key itself, so the key derivation (PBKDF2) is at
// the least that cryptsetup takes: there is nothing to guess. Each key slot has a
// token of the same number, which says where its passphrase comes from.
//
//	0         two copies of the header, 16 KiB each
//	32 KiB    four key slots: the volume's key, spread over 4000 stripes
//	          (so that a slot that was wiped is gone) and encrypted
//	DataOffset   the data
package luks

import (
	"bytes"
	"crypto/aes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/crypto/xts"
)

// What a volume of ours is made of.
const (
	// KeySize is that of a volume's key: two AES keys of 256 bits.
	KeySize = 64
	// SectorSize is the unit of the data's encryption.
	SectorSize = 4096
	// DataOffset is where the data begins.
	DataOffset = 2 << 20

	encryption = "aes-xts-plain64"
	label      = "zos state"

	iterations    = 1000 // the least that cryptsetup takes
	maxIterations = 10 * iterations
	stripes       = 4000
	maxSlots      = 4
	slotsAt       = 2 * headerSize
	slotSize      = (KeySize*stripes + 4095) / 4096 * 4096
	areaSector    = 512 // of key slots
)

// ErrPassphrase says that a passphrase opens no such slot.
var ErrPassphrase = errors.New("the passphrase does not fit")

// Token says where the passphrase of the key slot of the same number comes
// from. Type is a name of ours; cryptsetup shows and keeps what it does not know.
type Token struct {
	Type     string   `json:"type"`
	Keyslots []string `json:"keyslots"`
	// Value is what is needed besides: a sealed key, or one encrypted to somebody.
	Value json.RawMessage `json:"value"`
}

// Disk is what a header is written to. Sync makes what was written last.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// New makes the header of a new volume, without key slots, in memory.
func New(key []byte) (*Header, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("LUKS2: a key of %d bytes, want %d", len(key), KeySize)
	}
	salt := random(32)
	sum, err := pbkdf2.Key(sha256.New, string(key), salt, iterations, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("LUKS2: %w", err)
	}
	return &Header{UUID: newUUID(), meta: metadata{
		Keyslots: map[string]keyslot{}, Tokens: map[string]Token{},
		Segments: map[string]segment{"0": {"crypt", strconv.Itoa(DataOffset), "dynamic", "0", encryption, SectorSize}},
		Digests:  map[string]digest{"0": {"pbkdf2", []string{}, []string{"0"}, "sha256", iterations, salt, sum}},
		Config:   config{strconv.Itoa(jsonSize), strconv.Itoa(DataOffset - slotsAt)},
	}}, nil
}

// Token returns the value of the token of a type, nil when there is none.
func (h *Header) Token(typ string) json.RawMessage {
	if n, ok := h.find(typ); ok {
		return h.meta.Tokens[n].Value
	}
	return nil
}

func (h *Header) find(typ string) (string, bool) {
	for n := range maxSlots {
		name := strconv.Itoa(n)
		if t, ok := h.meta.Tokens[name]; ok && t.Type == typ {
			return name, true
		}
	}
	return "", false
}

// Add puts the volume's key into a free slot under a passphrase: the slot's
// area is on the disk, the header is still the old one until Commit.
func (h *Header) Add(d Disk, key, passphrase []byte, typ string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("LUKS2 token: %w", err)
	}
	for n := range maxSlots {
		name := strconv.Itoa(n)
		if _, used := h.meta.Keyslots[name]; used {
			continue
		}
		s := slotOf(n, random(32), iterations)
		sealed, err := s.crypt(split(key), passphrase, true)
		if err != nil {
			return err
		}
		if _, err := d.WriteAt(sealed, slotAt(n)); err != nil {
			return fmt.Errorf("LUKS2 key slot: %w", err)
		}
		h.meta.Keyslots[name] = s
		h.meta.Tokens[name] = Token{typ, []string{name}, raw}
		h.digestOf()
		return nil
	}
	return fmt.Errorf("LUKS2: all %d key slots are taken", maxSlots)
}

// Remove takes the slot of a token out, as soon as Commit is through.
func (h *Header) Remove(typ string) {
	if n, ok := h.find(typ); ok {
		delete(h.meta.Keyslots, n)
		delete(h.meta.Tokens, n)
		h.digestOf()
	}
}

// digestOf keeps the list of slots that hold the one key.
func (h *Header) digestOf() {
	d := h.meta.Digests["0"]
	d.Keyslots = []string{}
	for n := range maxSlots {
		if _, ok := h.meta.Keyslots[strconv.Itoa(n)]; ok {
			d.Keyslots = append(d.Keyslots, strconv.Itoa(n))
		}
	}
	h.meta.Digests["0"] = d
}

// Commit writes the header: key slots are on the disk before, one copy is whole
// at any time, and slots that are in use no more are wiped after.
func (h *Header) Commit(d Disk) error {
	h.sequence++
	if err := d.Sync(); err != nil {
		return fmt.Errorf("LUKS2 key slots: %w", err)
	}
	for i := range magics {
		b, err := h.encode(i)
		if err != nil {
			return err
		}
		if _, err := d.WriteAt(b, int64(i*headerSize)); err != nil {
			return fmt.Errorf("LUKS2 header: %w", err)
		}
		if err := d.Sync(); err != nil {
			return fmt.Errorf("LUKS2 header: %w", err)
		}
	}
	for n := range maxSlots {
		if _, used := h.meta.Keyslots[strconv.Itoa(n)]; !used {
			if _, err := d.WriteAt(random(slotSize), slotAt(n)); err != nil {
				return fmt.Errorf("LUKS2 key slot: %w", err)
			}
		}
	}
	if err := d.Sync(); err != nil {
		return fmt.Errorf("LUKS2 key slots: %w", err)
	}
	return nil
}

// Unlock returns the volume's key from the slot of a token.
func (h *Header) Unlock(r io.ReaderAt, typ string, passphrase []byte) ([]byte, error) {
	name, ok := h.find(typ)
	if !ok {
		return nil, fmt.Errorf("LUKS2: no key slot of type %s", typ)
	}
	s := h.meta.Keyslots[name]
	n, err := strconv.Atoi(name)
	if err != nil {
		return nil, fmt.Errorf("LUKS2 key slot: %w", err)
	}
	b := make([]byte, KeySize*stripes)
	if _, err := r.ReadAt(b, slotAt(n)); err != nil {
		return nil, fmt.Errorf("LUKS2 key slot: %w", err)
	}
	plain, err := s.crypt(b, passphrase, false)
	if err != nil {
		return nil, err
	}
	key := merge(plain)
	d := h.meta.Digests["0"]
	sum, err := pbkdf2.Key(sha256.New, string(key), d.Salt, d.Iterations, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("LUKS2: %w", err)
	}
	if subtle.ConstantTimeCompare(sum, d.Digest) != 1 {
		return nil, ErrPassphrase
	}
	return key, nil
}

func slotAt(n int) int64 { return int64(slotsAt + n*slotSize) }

func slotOf(n int, salt []byte, iterations int) keyslot {
	return keyslot{
		"luks2", KeySize, af{"luks1", stripes, "sha256"},
		area{"raw", strconv.FormatInt(slotAt(n), 10), strconv.Itoa(slotSize), encryption, KeySize},
		kdf{"pbkdf2", "sha256", iterations, salt},
	}
}

// crypt en- or decrypts a slot's area in place.
func (s *keyslot) crypt(b, passphrase []byte, seal bool) ([]byte, error) {
	key, err := pbkdf2.Key(sha256.New, string(passphrase), s.KDF.Salt, s.KDF.Iterations, KeySize)
	if err != nil {
		return nil, fmt.Errorf("LUKS2 key slot: %w", err)
	}
	c, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		return nil, fmt.Errorf("LUKS2 key slot: %w", err)
	}
	for i := 0; i < len(b); i += areaSector {
		sector := b[i : i+areaSector]
		if seal {
			c.Encrypt(sector, sector, uint64(i/areaSector))
		} else {
			c.Decrypt(sector, sector, uint64(i/areaSector))
		}
	}
	return b, nil
}

// split spreads a key over stripes: without any one of them, nothing is left
// of it (the anti-forensic splitter of LUKS1).
func split(key []byte) []byte {
	b := random(len(key) * stripes)
	last := b[len(key)*(stripes-1):]
	sum := make([]byte, len(key))
	for i := range stripes - 1 {
		subtle.XORBytes(sum, sum, b[i*len(key):][:len(key)])
		diffuse(sum)
	}
	subtle.XORBytes(last, sum, key)
	return b
}

func merge(b []byte) []byte {
	size := len(b) / stripes
	sum := make([]byte, size)
	for i := range stripes - 1 {
		subtle.XORBytes(sum, sum, b[i*size:][:size])
		diffuse(sum)
	}
	subtle.XORBytes(sum, sum, b[size*(stripes-1):])
	return sum
}

// diffuse replaces each digest's length of b by the digest of its number and
// itself.
func diffuse(b []byte) {
	in := make([]byte, 4+sha256.Size)
	for i := 0; i*sha256.Size < len(b); i++ {
		part := b[i*sha256.Size : min((i+1)*sha256.Size, len(b))]
		binary.BigEndian.PutUint32(in, uint32(i))
		sum := sha256.Sum256(append(bytes.Clone(in[:4]), part...))
		copy(part, sum[:])
	}
}
