// SPDX-License-Identifier: Apache-2.0

package dm

import (
	"encoding/binary"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dmIoctl and dmTargetSpec are the kernel's structs as its header has them.
type dmIoctl struct {
	version                                                              [3]uint32
	dataSize, dataStart, targetCount, openCount, flags, eventNr, padding uint32
	dev                                                                  uint64
	name                                                                 [128]byte
	uuid                                                                 [129]byte
	data                                                                 [7]byte
}

type dmTargetSpec struct {
	sectorStart, length uint64
	status              int32
	next                uint32
	targetType          [16]byte
}

func TestLayout(t *testing.T) {
	var h dmIoctl
	var s dmTargetSpec
	for name, pair := range map[string][2]uintptr{
		"header": {unsafe.Sizeof(h), headerSize}, "spec": {unsafe.Sizeof(s), specSize},
		"name": {unsafe.Offsetof(h.name), nameOffset}, "flags": {unsafe.Offsetof(h.flags), flagsOffset},
		"dev": {unsafe.Offsetof(h.dev), devOffset}, "count": {unsafe.Offsetof(h.targetCount), countOffset},
		"size": {unsafe.Offsetof(h.dataSize), 12}, "start": {unsafe.Offsetof(h.dataStart), 16},
		"next": {unsafe.Offsetof(s.next), 20}, "type": {unsafe.Offsetof(s.targetType), 24},
		"read only": {unix.DM_READONLY_FLAG, flagReadOnly}, "table": {unix.DM_STATUS_TABLE_FLAG, flagStatusTable},
		"full": {unix.DM_BUFFER_FULL_FLAG, flagBufferFull}, "secure": {unix.DM_SECURE_DATA_FLAG, flagSecure},
		"create": {request(commandCreate), unix.DM_DEV_CREATE}, "remove": {request(commandRemove), unix.DM_DEV_REMOVE}, "suspend": {request(commandSuspend), unix.DM_DEV_SUSPEND},
		"load": {request(commandLoad), unix.DM_TABLE_LOAD}, "status": {request(commandStatus), unix.DM_TABLE_STATUS},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %#x, want %#x", name, pair[0], pair[1])
		}
	}
}

func TestEncode(t *testing.T) {
	b, err := encode("root", flagReadOnly, target(2400, "verity", "1 a b"), 1)
	if err != nil {
		t.Fatal(err)
	}
	h := (*dmIoctl)(unsafe.Pointer(&b[0]))
	s := (*dmTargetSpec)(unsafe.Pointer(&b[headerSize]))
	if h.version != [3]uint32{4, 0, 0} || h.dataSize != bufferSize || h.dataStart != headerSize || h.targetCount != 1 || h.flags != 1 {
		t.Errorf("header %+v", h)
	}
	if s.length != 2400 || s.sectorStart != 0 || s.next != 48 || !strings.HasPrefix(string(s.targetType[:]), "verity\x00") {
		t.Errorf("spec %+v", s)
	}
	start, length, kind, text, err := decodeTarget(b)
	if err != nil || start != 0 || length != 2400 || kind != "verity" || text != "1 a b" {
		t.Errorf("%d %d %s %q %v", start, length, kind, text, err)
	}
	if _, err := encode("", 0, nil, 0); err == nil {
		t.Error("no name was accepted")
	}
	if _, err := encode("x", 0, make([]byte, bufferSize), 1); err == nil {
		t.Error("an endless table was accepted")
	}
}

// TestCutAnswers: a status that is not whole is none.
func TestCutAnswers(t *testing.T) {
	n := binary.NativeEndian
	whole := func() []byte {
		b := append(make([]byte, headerSize), target(8, "verity", "V")...)
		n.PutUint32(b[16:], headerSize)
		n.PutUint32(b[countOffset:], 1)
		return b
	}
	if _, length, kind, text, err := decodeTarget(whole()); err != nil || length != 8 || kind != "verity" || text != "V" {
		t.Fatal(length, kind, text, err)
	}
	for name, edit := range map[string]func([]byte) []byte{
		"no header":          func(b []byte) []byte { return b[:headerSize-1] },
		"no target":          func(b []byte) []byte { n.PutUint32(b[countOffset:], 0); return b },
		"two targets":        func(b []byte) []byte { n.PutUint32(b[countOffset:], 2); return b },
		"full buffer":        func(b []byte) []byte { n.PutUint32(b[flagsOffset:], flagBufferFull); return b },
		"target behind it":   func(b []byte) []byte { n.PutUint32(b[16:], uint32(len(b))); return b },
		"text without end":   func(b []byte) []byte { return b[:headerSize+specSize+1] },
		"target half inside": func(b []byte) []byte { return b[:headerSize+specSize-1] },
	} {
		if _, _, _, text, err := decodeTarget(edit(whole())); err == nil {
			t.Errorf("%s: %q was taken", name, text)
		}
	}
}

func FuzzDecodeTarget(f *testing.F) {
	b, err := encode("root", 0, target(8, "verity", "V"), 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:headerSize+64])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, _, text, err := decodeTarget(b)
		if err == nil && binary.NativeEndian.Uint32(b[countOffset:]) != 1 {
			t.Errorf("%q of several targets", text)
		}
	})
}
