// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// The binary part of a header: 4096 bytes, numbers in big-endian (LUKS2
// on-disk format specification, 2.1). JSON fills the rest.
const (
	headerSize = 16 << 10
	binarySize = 4096
	jsonSize   = headerSize - binarySize

	atVersion  = 6
	atSize     = 8
	atSequence = 16
	atLabel    = 24
	atAlgo     = 72
	atSalt     = 104
	saltSize   = 64
	atUUID     = 168
	atOffset   = 256
	atSum      = 448
)

var magics = [2]string{"LUKS\xba\xbe", "SKUL\xba\xbe"}

// metadata is the JSON area, as far as this package knows it. Numbers that may
// not fit a float are decimal strings, as the specification has them.
type metadata struct {
	Keyslots map[string]keyslot `json:"keyslots"`
	Tokens   map[string]Token   `json:"tokens"`
	Segments map[string]segment `json:"segments"`
	Digests  map[string]digest  `json:"digests"`
	Config   config             `json:"config"`
}

type keyslot struct {
	Type    string `json:"type"`
	KeySize int    `json:"key_size"`
	AF      af     `json:"af"`
	Area    area   `json:"area"`
	KDF     kdf    `json:"kdf"`
}

type af struct {
	Type    string `json:"type"`
	Stripes int    `json:"stripes"`
	Hash    string `json:"hash"`
}

type area struct {
	Type       string `json:"type"`
	Offset     string `json:"offset"`
	Size       string `json:"size"`
	Encryption string `json:"encryption"`
	KeySize    int    `json:"key_size"`
}

type kdf struct {
	Type       string `json:"type"`
	Hash       string `json:"hash"`
	Iterations int    `json:"iterations"`
	Salt       []byte `json:"salt"`
}

type segment struct {
	Type       string `json:"type"`
	Offset     string `json:"offset"`
	Size       string `json:"size"`
	Tweak      string `json:"iv_tweak"`
	Encryption string `json:"encryption"`
	Sector     int    `json:"sector_size"`
}

type digest struct {
	Type       string   `json:"type"`
	Keyslots   []string `json:"keyslots"`
	Segments   []string `json:"segments"`
	Hash       string   `json:"hash"`
	Iterations int      `json:"iterations"`
	Salt       []byte   `json:"salt"`
	Digest     []byte   `json:"digest"`
}

type config struct {
	JSONSize     string `json:"json_size"`
	KeyslotsSize string `json:"keyslots_size"`
}

// Header is one volume's, as it stands on its disk.
type Header struct {
	UUID     string
	sequence uint64
	meta     metadata
}

// ErrNone says that a disk has no header at all: its beginning is zeros.
var ErrNone = errors.New("no encrypted volume yet")

// ErrHeader says that a disk holds something else, or a header that is damaged
// or not one of ours. Nothing of it is believed.
var ErrHeader = errors.New("no LUKS2 header of ours")

// Read takes the newer of the two copies that are whole.
func Read(r io.ReaderAt) (*Header, error) {
	both := make([]byte, 2*headerSize)
	if _, err := r.ReadAt(both, 0); err != nil {
		return nil, fmt.Errorf("LUKS2 header: %w", err)
	}
	if len(bytes.Trim(both, "\x00")) == 0 {
		return nil, ErrNone
	}
	var best *Header
	var errs []error
	for i := range magics {
		h, err := decode(both[i*headerSize:][:headerSize], i)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if best == nil || h.sequence > best.sequence {
			best = h
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w: %w", ErrHeader, errors.Join(errs...))
	}
	return best, nil
}

func decode(b []byte, copyNo int) (*Header, error) {
	be := binary.BigEndian
	switch {
	case string(b[:6]) != magics[copyNo]:
		return nil, fmt.Errorf("copy %d: no magic", copyNo)
	case be.Uint16(b[atVersion:]) != 2:
		return nil, fmt.Errorf("copy %d: version %d", copyNo, be.Uint16(b[atVersion:]))
	case be.Uint64(b[atSize:]) != headerSize || be.Uint64(b[atOffset:]) != uint64(copyNo*headerSize):
		return nil, fmt.Errorf("copy %d: size or place is not ours", copyNo)
	case text(b[atAlgo:atSalt]) != "sha256":
		return nil, fmt.Errorf("copy %d: checksum by %q", copyNo, text(b[atAlgo:atSalt]))
	}
	sum := checksum(b)
	if !bytes.Equal(sum[:], b[atSum:atSum+len(sum)]) {
		return nil, fmt.Errorf("copy %d: checksum does not fit", copyNo)
	}
	h := &Header{UUID: text(b[atUUID : atUUID+40]), sequence: be.Uint64(b[atSequence:])}
	if err := json.Unmarshal(bytes.TrimRight(b[binarySize:], "\x00"), &h.meta); err != nil {
		return nil, fmt.Errorf("copy %d: %w", copyNo, err)
	}
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("copy %d: %w", copyNo, err)
	}
	return h, nil
}

// check refuses everything that this package does not write: who can write to
// the disk must not choose a cipher, a hash or a place.
func (h *Header) check() error {
	m := h.meta
	want := segment{"crypt", strconv.Itoa(DataOffset), "dynamic", "0", encryption, SectorSize}
	if len(m.Segments) != 1 || m.Segments["0"] != want {
		return fmt.Errorf("segments are %v", m.Segments)
	}
	if len(m.Digests) != 1 || len(m.Digests["0"].Digest) != sha256.Size {
		return errors.New("digests are not ours")
	}
	if d := m.Digests["0"]; d.Type != "pbkdf2" || d.Hash != "sha256" || d.Iterations < iterations || d.Iterations > maxIterations {
		return errors.New("digest is not ours")
	}
	for name, s := range m.Keyslots {
		n, err := strconv.Atoi(name)
		if err != nil || n < 0 || n >= maxSlots || strconv.Itoa(n) != name {
			return fmt.Errorf("key slot %q", name)
		}
		if want := slotOf(n, s.KDF.Salt, s.KDF.Iterations); s.Type != want.Type || s.KeySize != want.KeySize || s.AF != want.AF || s.Area != want.Area ||
			s.KDF.Type != want.KDF.Type || s.KDF.Hash != want.KDF.Hash || s.KDF.Iterations < iterations || s.KDF.Iterations > maxIterations {
			return fmt.Errorf("key slot %s is not ours", name)
		}
	}
	for name, t := range m.Tokens {
		if len(t.Keyslots) != 1 || t.Keyslots[0] != name {
			return fmt.Errorf("token %q is for key slots %q", name, t.Keyslots)
		}
		if _, ok := m.Keyslots[name]; !ok {
			return fmt.Errorf("token %q is for no key slot", name)
		}
	}
	return nil
}

// encode lays out one copy.
func (h *Header) encode(copyNo int) ([]byte, error) {
	text, err := json.Marshal(h.meta)
	if err != nil {
		return nil, fmt.Errorf("LUKS2 header: %w", err)
	}
	if len(text) >= jsonSize {
		return nil, fmt.Errorf("LUKS2 header: %d bytes of metadata, there is room for %d", len(text), jsonSize-1)
	}
	b := make([]byte, headerSize)
	be := binary.BigEndian
	copy(b, magics[copyNo])
	be.PutUint16(b[atVersion:], 2)
	be.PutUint64(b[atSize:], headerSize)
	be.PutUint64(b[atSequence:], h.sequence)
	copy(b[atLabel:], label)
	copy(b[atAlgo:], "sha256")
	copy(b[atSalt:atSalt+saltSize], random(saltSize))
	copy(b[atUUID:], h.UUID)
	be.PutUint64(b[atOffset:], uint64(copyNo*headerSize))
	copy(b[binarySize:], text)
	sum := checksum(b)
	copy(b[atSum:], sum[:])
	return b, nil
}

// checksum is over the whole copy with the checksum's own field as zeros.
func checksum(b []byte) [sha256.Size]byte {
	c := bytes.Clone(b)
	clear(c[atSum : atSum+64])
	return sha256.Sum256(c)
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// random bytes; the standard library's source does not fail.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func newUUID() string {
	b := random(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
