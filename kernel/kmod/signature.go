// SPDX-License-Identifier: Apache-2.0

package kmod

import (
	"bytes"
	"encoding/binary"
)

// signatureMagic ends a signed module (Linux's Documentation/admin-guide/module-signing).
const signatureMagic = "~Module signature appended~\n"

// signatureInfo is the size of struct module_signature, which stands before
// the magic: eight bytes of algorithms and lengths that are zero today, then
// the length of the PKCS#7 message before it, big-endian.
const signatureInfo = 12

// Unsigned returns a module without its appended signature. One that has none,
// or whose trailer makes no sense, is returned as it is.
func Unsigned(ko []byte) []byte {
	body, signed := bytes.CutSuffix(ko, []byte(signatureMagic))
	if !signed || len(body) < signatureInfo {
		return ko
	}
	info := body[len(body)-signatureInfo:]
	body = body[:len(body)-signatureInfo]
	n := int64(binary.BigEndian.Uint32(info[8:]))
	if n > int64(len(body)) {
		return ko
	}
	return body[:int64(len(body))-n]
}
