// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Origin is what the firmware says of the disk that it started from.
type Origin int

const (
	Unknown Origin = iota
	OnUSB
	Inside // on any other bus
)

const globalGUID = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"

// Offsets in a boot entry, EFI_LOAD_OPTION (UEFI specification, 3.1.3), and the
// nodes of a device path (10.3) that tell.
const (
	descriptionAt = 6
	nodeHeader    = 4
	typeACPI      = 2
	typeMessaging = 3
	typeEnd       = 0x7f
	usb           = 5
	usbClass      = 15
	usbWWID       = 16
)

// Started tells the bus from the boot entry that the firmware says it took
// (BootCurrent). An entry with a short path, such as one that names a partition
// on whatever disk, tells nothing.
func Started(efivars string) Origin {
	b, err := os.ReadFile(filepath.Join(efivars, "BootCurrent"+globalGUID))
	if err != nil || len(b) != attributes+2 {
		return Unknown
	}
	name := fmt.Sprintf("Boot%04X", binary.LittleEndian.Uint16(b[attributes:]))
	if b, err = os.ReadFile(filepath.Join(efivars, name+globalGUID)); err != nil || len(b) < attributes {
		return Unknown
	}
	return origin(b[attributes:])
}

// origin reads a boot entry.
func origin(entry []byte) Origin {
	if len(entry) < descriptionAt {
		return Unknown
	}
	length := int(binary.LittleEndian.Uint16(entry[4:]))
	path := entry[descriptionAt:]
	for { // the description ends in a zero
		if len(path) < 2 {
			return Unknown
		}
		c := path[:2]
		if path = path[2:]; bytes.Equal(c, []byte{0, 0}) {
			break
		}
	}
	if length > len(path) {
		return Unknown
	}
	whole := false // from the machine's root down to the disk
	for path, first := path[:length], true; len(path) >= nodeHeader; first = false {
		kind, sub, n := path[0], path[1], int(binary.LittleEndian.Uint16(path[2:]))
		switch {
		case n < nodeHeader || n > len(path):
			return Unknown
		case kind == typeMessaging && (sub == usb || sub == usbClass || sub == usbWWID):
			return OnUSB
		case kind == typeEnd:
			if whole {
				return Inside
			}
			return Unknown
		}
		whole = whole || first && kind == typeACPI
		path = path[n:]
	}
	return Unknown
}

// fits says whether a partition can be the one that the firmware started from.
func (o Origin) fits(sys, name string) (bool, error) {
	if o == Unknown {
		return true, nil
	}
	real, err := filepath.EvalSymlinks(filepath.Join(sys, name))
	if err != nil {
		return false, err
	}
	return strings.Contains(real, "/usb") == (o == OnUSB), nil
}
