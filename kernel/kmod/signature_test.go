// SPDX-License-Identifier: Apache-2.0

package kmod

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestUnsigned(t *testing.T) {
	module, pkcs7 := []byte("\x7fELF a module"), []byte("a PKCS#7 message")
	info := make([]byte, signatureInfo)
	binary.BigEndian.PutUint32(info[8:], uint32(len(pkcs7)))
	signed := bytes.Join([][]byte{module, pkcs7, info, []byte(signatureMagic)}, nil)
	binary.BigEndian.PutUint32(info[8:], 1<<31)
	long := bytes.Join([][]byte{module, pkcs7, info, []byte(signatureMagic)}, nil)
	for name, c := range map[string]struct{ in, want []byte }{
		"signed":                     {signed, module},
		"not signed":                 {module, module},
		"only the magic":             {[]byte(signatureMagic), []byte(signatureMagic)},
		"a length beyond the file":   {long, long},
		"something behind the magic": {append(bytes.Clone(signed), 0), append(bytes.Clone(signed), 0)},
	} {
		if got := Unsigned(c.in); !bytes.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
