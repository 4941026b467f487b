// SPDX-License-Identifier: Apache-2.0

package power

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func event(typ, code uint16, value uint32) []byte {
	b := make([]byte, eventSize)
	binary.NativeEndian.PutUint16(b[16:], typ)
	binary.NativeEndian.PutUint16(b[18:], code)
	binary.NativeEndian.PutUint32(b[20:], value)
	return b
}

func TestPressed(t *testing.T) {
	r := bytes.NewReader(slices.Concat(event(0, 0, 0), event(evKey, 30, 1), event(evKey, keyPower, 0), event(evKey, keyPower, 1), event(evKey, 99, 1)))
	if err := Pressed(r); err != nil {
		t.Fatal(err)
	}
	if r.Len() != eventSize {
		t.Errorf("%d bytes left: returned at the wrong event", r.Len())
	}
	if err := Pressed(bytes.NewReader(event(evKey, 30, 1))); err == nil {
		t.Error("a device that ends was taken for a press")
	}
}

func TestButtons(t *testing.T) {
	dir := t.TempDir()
	for name, bits := range map[string]string{
		"event0": "10000000000000 0\n",                                            // power: bit 116 = bit 52 of the second word
		"event1": "402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe\n", // a keyboard with it
		"event2": "1f0000 0 0 0 0\n",                                              // a mouse
		"event3": "0\n",
	} {
		d := filepath.Join(dir, name, "device/capabilities")
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "key"), []byte(bits), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Buttons(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"event0", "event1"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestSteps(t *testing.T) {
	var names []string
	for _, s := range Steps("/nowhere", func() error { return nil }, func(time.Duration) {}) {
		names = append(names, s.Name)
	}
	if i, j := slices.Index(names, "end all processes"), slices.Index(names, "unmount disks"); i < 0 || j < i || names[0] != "end what is left of guests" {
		t.Errorf("order: %v", names)
	}
	if err := killGroup("/nowhere"); err != nil {
		t.Errorf("no guest ever ran: %v", err)
	}
}
