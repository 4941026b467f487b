// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// DMIPath is the kernel's copy of the machine's SMBIOS structures.
const DMIPath = "/sys/firmware/dmi/tables/DMI"

const (
	typeOEMStrings = 11
	headLen        = 4
)

// ErrNone says that a source holds no seed.
var ErrNone = errors.New("no seed here")

// smbios reads the seed from the OEM strings. A long seed may be cut over
// several strings with the same prefix; they are joined in their order.
func smbios(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("SMBIOS: %w", err)
	}
	strs, err := oemStrings(b)
	if err != nil {
		return nil, fmt.Errorf("SMBIOS: %w", err)
	}
	var text strings.Builder
	for _, s := range strs {
		if part, ok := strings.CutPrefix(s, SMBIOSPrefix); ok {
			text.WriteString(part)
		}
	}
	if text.Len() == 0 {
		return nil, ErrNone
	}
	out, err := base64.StdEncoding.Strict().DecodeString(text.String())
	if err != nil {
		return nil, fmt.Errorf("SMBIOS string %s: %w", SMBIOSPrefix, err)
	}
	return out, nil
}

// oemStrings walks the table: each structure is a head {type, length, handle},
// its formatted part of that length, and strings that end with an empty one.
func oemStrings(b []byte) ([]string, error) {
	var out []string
	for len(b) >= headLen {
		length := int(b[1])
		if length < headLen || length > len(b) {
			return nil, fmt.Errorf("structure of handle %d claims %d bytes of %d", binary.LittleEndian.Uint16(b[2:]), length, len(b))
		}
		typ := b[0]
		rest := b[length:]
		end := bytes.Index(rest, []byte{0, 0})
		if end < 0 {
			return nil, errors.New("strings of a structure do not end")
		}
		if typ == typeOEMStrings && end > 0 {
			out = append(out, strings.Split(string(rest[:end]), "\x00")...)
		}
		b = rest[end+2:]
	}
	return out, nil
}
