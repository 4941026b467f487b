// SPDX-License-Identifier: Apache-2.0

package secureboot

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"
)

// GUIDs of the UEFI specification.
const (
	guidGlobal   = "8be4df61-93ca-11d2-aa0d-00e098032b8c" // PK, KEK
	guidDatabase = "d719b2cb-3d3a-4596-a3bc-dad00e67656f" // db
	guidX509     = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072"
	guidPKCS7    = "4aafd29d-68df-49ee-8aa9-347d375665a7"
)

// Attrs of the three variables: non-volatile, for boot services and run time,
// changed only by who is authenticated with a time.
const Attrs = 0x27

const (
	certTypeGUID = 0x0ef1
	certGUIDHead = 24
)

func guid(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 {
		panic("GUID " + s) // a mistake in the constants above
	}
	return []byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}
}

// signatureList is an EFI_SIGNATURE_LIST of one certificate.
func signatureList(owner [16]byte, cert *x509.Certificate) []byte {
	b := guid(guidX509)
	le := binary.LittleEndian
	size := uint32(16 + len(cert.Raw))
	b = le.AppendUint32(b, 28+size)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, size)
	b = append(b, owner[:]...)
	return append(b, cert.Raw...)
}

// efiTime is an EFI_TIME with whole seconds in UTC.
func efiTime(t time.Time) []byte {
	t = t.UTC()
	b := binary.LittleEndian.AppendUint16(nil, uint16(t.Year()))
	return append(b, byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0, 0, 0, 0, 0, 0, 0, 0, 0)
}

// auth is a variable's new content behind the proof that p allows it: what
// SetVariable takes, and what a .auth file holds. The firmware refuses a time
// that is not later than the last one.
func (p Pair) auth(name, vendor string, at time.Time, content []byte) ([]byte, error) {
	stamp := efiTime(at)
	var signed bytes.Buffer
	for _, c := range utf16.Encode([]rune(name)) {
		signed.Write([]byte{byte(c), byte(c >> 8)})
	}
	signed.Write(guid(vendor))
	signed.Write([]byte{Attrs, 0, 0, 0})
	signed.Write(stamp)
	signed.Write(content)
	data, err := p.signedData(tlv(tagSequence, oidData), sha256.Sum256(signed.Bytes()))
	if err != nil {
		return nil, fmt.Errorf("variable %s: %w", name, err)
	}
	le := binary.LittleEndian
	b := stamp
	b = le.AppendUint32(b, uint32(certGUIDHead+len(data)))
	b = le.AppendUint16(b, certVersion)
	b = le.AppendUint16(b, certTypeGUID)
	b = append(b, guid(guidPKCS7)...)
	b = append(b, data...)
	return append(b, content...), nil
}
