// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
)

// Var is one UEFI variable.
type Var struct {
	Name  string
	GUID  string // of its vendor
	Attrs uint32
	Data  []byte
}

// Vars are variables in OVMF's store: the authenticated format of EDK II's
// VariableFormat.h. The rig puts boot entries in, and reads what the firmware
// ended with.
type Vars []Var

// GUIDs of vendors.
const (
	GlobalGUID   = "8be4df61-93ca-11d2-aa0d-00e098032b8c" // Boot####, PK, KEK
	DatabaseGUID = "d719b2cb-3d3a-4596-a3bc-dad00e67656f" // db, dbx
)

const (
	varStart    = 0x55aa
	varAdded    = 0x3f
	varHeader   = 60
	storeHeader = 28
	bootAttrs   = 7 // non-volatile, boot services, run time
)

// ErrVars says that a file is no variable store that we can read.
var ErrVars = errors.New("unexpected OVMF variable store")

// store returns where the variables of a file begin and how far they may go.
func store(b []byte) (from, to int, err error) {
	// Firmware volume header: signature at 40, its length at 48.
	if len(b) < 128 || string(b[40:44]) != "_FVH" {
		return 0, 0, fmt.Errorf("%w: no firmware volume", ErrVars)
	}
	at := int(binary.LittleEndian.Uint16(b[48:]))
	if at+storeHeader > len(b) {
		return 0, 0, fmt.Errorf("%w: cut off", ErrVars)
	}
	size := int(binary.LittleEndian.Uint32(b[at+16:]))
	if b[at+20] != 0x5a || b[at+21] != 0xfe || size < storeHeader || at+size > len(b) {
		return 0, 0, fmt.Errorf("%w: not formatted", ErrVars)
	}
	return at + storeHeader, at + size, nil
}

// ReadVars lists the variables that are in force.
func ReadVars(b []byte) (Vars, error) {
	var all Vars
	_, err := walk(b, func(v Var) { all = append(all, v) })
	return all, err
}

// walk visits the variables and returns where the free space begins.
func walk(b []byte, visit func(Var)) (int, error) {
	at, end, err := store(b)
	if err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	for at+varHeader <= end && le.Uint16(b[at:]) == varStart {
		nameLen, dataLen := int(le.Uint32(b[at+36:])), int(le.Uint32(b[at+40:]))
		body := at + varHeader
		if nameLen < 2 || nameLen > end-body || dataLen > end-body-nameLen || dataLen < 0 {
			return 0, fmt.Errorf("%w: a variable is cut off", ErrVars)
		}
		if b[at+2] == varAdded {
			name := make([]uint16, nameLen/2-1)
			for i := range name {
				name[i] = le.Uint16(b[body+2*i:])
			}
			visit(Var{string(utf16.Decode(name)), guidText(b[at+44:]), le.Uint32(b[at+4:]), bytes.Clone(b[body+nameLen : body+nameLen+dataLen])})
		}
		at = (body + nameLen + dataLen + 3) &^ 3
	}
	return at, nil
}

// Find returns a variable's data.
func (vs Vars) Find(name string) ([]byte, bool) {
	for _, v := range vs {
		if v.Name == name {
			return v.Data, true
		}
	}
	return nil, false
}

// Into returns a copy of a store with these variables added.
func (vs Vars) Into(b []byte) ([]byte, error) {
	b = bytes.Clone(b)
	at, err := walk(b, func(Var) {})
	if err != nil {
		return nil, err
	}
	_, end, err := store(b)
	if err != nil {
		return nil, err
	}
	for _, v := range vs {
		h := make([]byte, varHeader)
		le := binary.LittleEndian
		name := utf16le(v.Name)
		le.PutUint16(h, varStart)
		h[2] = varAdded
		le.PutUint32(h[4:], v.Attrs)
		le.PutUint32(h[36:], uint32(len(name)))
		le.PutUint32(h[40:], uint32(len(v.Data)))
		g, err := guidBytes(v.GUID)
		if err != nil {
			return nil, err
		}
		copy(h[44:], g)
		all := append(append(h, name...), v.Data...)
		if at+len(all) > end {
			return nil, fmt.Errorf("%w: full", ErrVars)
		}
		copy(b[at:], all)
		at = (at + len(all) + 3) &^ 3
	}
	return b, nil
}

// BootURL makes the firmware fetch and start a program by HTTP.
func BootURL(url string) Vars {
	uri := append([]byte{3, 24, byte(4 + len(url)), byte((4 + len(url)) >> 8)}, url...)
	path := append(uri, 0x7f, 0xff, 4, 0)
	option := binary.LittleEndian.AppendUint32(nil, 1) // active
	option = binary.LittleEndian.AppendUint16(option, uint16(len(path)))
	option = append(option, utf16le("rig: HTTP boot")...)
	option = append(option, path...)
	return Vars{
		{"Boot0000", GlobalGUID, bootAttrs, option},
		{"BootOrder", GlobalGUID, bootAttrs, []byte{0, 0}},
		{"BootNext", GlobalGUID, bootAttrs, []byte{0, 0}},
	}
}

func utf16le(s string) []byte {
	var b []byte
	for _, c := range append(utf16.Encode([]rune(s)), 0) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return b
}

// guidBytes turns text into the mixed byte order of UEFI.
func guidBytes(s string) ([]byte, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 {
		return nil, fmt.Errorf("GUID %q", s)
	}
	return swapped(b), nil
}

func guidText(b []byte) string {
	s := hex.EncodeToString(swapped(b[:16]))
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

func swapped(b []byte) []byte {
	return []byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}
}
