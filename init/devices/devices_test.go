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

func (f *fake) Boot() []string { return []string{"tun", "kvm_intel", "broken"} }
func (f *fake) Match(alias string) []string {
	return map[string][]string{"pci:1": {"virtio_pci"}, "virtio:1": {"virtio_net"}}[alias]
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
	r, err := Load(f, func() ([]string, error) {
		passes++
		if passes == 1 {
			return []string{"pci:1", "usb:9"}, nil
		}
		return []string{"pci:1", "usb:9", "virtio:1"}, nil // the bus driver made it appear
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"virtio_pci", "tun", "kvm_intel", "broken", "virtio_net"}; !slices.Equal(f.loaded, want) {
		t.Errorf("loaded %v, want %v", f.loaded, want)
	}
	if r.Loaded != 3 || !slices.Equal(r.Absent, []string{"kvm_intel"}) || !slices.Equal(r.Failed, []string{"broken"}) || r.Unclaimed != 1 {
		t.Errorf("%+v", r)
	}
}
