// SPDX-License-Identifier: Apache-2.0

package devices

import (
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/zos-node/zos/kernel/kmod"
)

type fake struct{ loaded []string }

func (f *fake) Match(alias string) []string {
	return map[string][]string{"pci:1": {"virtio_pci"}, "virtio:1": {"virtio_net"}, "cpu:x": {"aesni"}, "virtio:4": {"virtio_rng"}}[alias]
}
func (f *fake) Load(m string) error {
	f.loaded = append(f.loaded, m)
	switch m {
	case "kvm_intel":
		return kmod.ErrNoDevice
	case "broken":
		return errors.New("bad")
	}
	return nil
}

func TestLoad(t *testing.T) {
	f := &fake{}
	passes := 0
	r, err := Load(f, Early([]string{"tun", "kvm_intel", "broken"}, []string{"virtio_rng"}), func() ([]string, error) {
		passes++
		if passes == 1 {
			return []string{"pci:1", "cpu:x", "usb:9"}, nil
		}
		return []string{"pci:1", "usb:9", "virtio:1", "virtio:4"}, nil // the bus driver made it appear
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"virtio_pci", "tun", "kvm_intel", "broken", "virtio_net"}; !slices.Equal(f.loaded, want) {
		t.Errorf("loaded %v, want %v", f.loaded, want)
	}
	if r.Loaded != 3 || !slices.Equal(r.Absent, []string{"kvm_intel"}) || !slices.Equal(r.Failed, []string{"broken"}) {
		t.Errorf("%+v", r)
	}
}

func TestLateSkipsNothing(t *testing.T) {
	f := &fake{}
	if _, err := Load(f, Late(nil), func() ([]string, error) { return []string{"cpu:x", "virtio:4"}, nil }, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(f.loaded, []string{"aesni", "virtio_rng"}) {
		t.Errorf("loaded %v", f.loaded)
	}
}

// TestButtonsFirst: a node that loads its drivers hears its power button before
// it has loaded any other, of a device or by name.
func TestButtonsFirst(t *testing.T) {
	f := &fake{}
	listen := func() { f.loaded = append(f.loaded, "listen") }
	r, err := LoadLate(f, []string{"tun", "button", "evdev"}, func() ([]string, error) { return []string{"cpu:x", "virtio:4"}, nil }, listen, slog.New(slog.DiscardHandler))
	if err != nil || len(r.Failed) > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if want := []string{"button", "evdev", "listen", "aesni", "virtio_rng", "tun", "button", "evdev"}; !slices.Equal(f.loaded, want) { // the index knows what is loaded
		t.Errorf("loaded %v, want %v", f.loaded, want)
	}
}
