// SPDX-License-Identifier: Apache-2.0

package boards

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestEveryBoardLoads(t *testing.T) {
	names, err := Names()
	if err != nil || len(names) == 0 {
		t.Fatalf("boards: %v, %v", names, err)
	}
	for _, n := range names {
		b, err := Load(n)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if strings.ContainsAny(b.Cmdline, "\n\t") {
			t.Errorf("%s: cmdline is not one line: %q", n, b.Cmdline)
		}
	}
}

// TestWhatBoardsAreFor: boards promise the drivers of the machines that they are
// made for; that an image has what is promised is the image's test.
func TestWhatBoardsAreFor(t *testing.T) {
	for name, want := range map[string][]string{
		"qemu-x86_64": {"virtio_blk", "virtio_net"},
		"qemu-arm64":  {"virtio_blk", "virtio_net"},
		"vm-x86_64":   {"virtio_blk", "virtio_net", "hv_storvsc", "hv_netvsc", "vmxnet3", "vmw_pvscsi", "xen_blkfront", "xen_netfront"},
		"pc-x86_64":   {"nvme", "ahci", "megaraid_sas", "mpt3sas", "igb", "ixgbe", "i40e", "bnxt_en", "tg3", "mlx5_core", "usb_storage"},
	} {
		b, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range want {
			if !slices.Contains(b.Drivers, d) {
				t.Errorf("%s does not promise %s: %v", name, d, b.Drivers)
			}
		}
	}
}

func TestUnknownBoardNamesTheOthers(t *testing.T) {
	for _, n := range []string{"pdp-11", "../boards/qemu-x86_64", ""} {
		_, err := Load(n)
		if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "qemu-x86_64") {
			t.Errorf("%q: %v", n, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := "name: a\nabout: b\narch: amd64\nkernel: k\nguestKernel: k\nmodules: [kvm]\ninitramfs: lz4\ncmdline: quiet\nespMiB: 100\n"
	if _, err := Decode([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, says string }{
		"unknown field": {good + "color: red\n", "color"},
		"no kernel":     {strings.Replace(good, "kernel: k\n", "", 1), "kernel"},
		"no modules":    {strings.Replace(good, "modules: [kvm]\n", "", 1), "modules"},
		"no initramfs":  {strings.Replace(good, "initramfs: lz4\n", "", 1), "initramfs"},
		"bzip2":         {strings.Replace(good, "lz4", "bzip2", 1), "want lz4 or zstd"},
		"tiny ESP":      {strings.Replace(good, "100", "1", 1), "espMiB"},
		"bad name":      {strings.Replace(good, "name: a", "name: A/b", 1), "name"},
	} {
		if _, err := Decode([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
