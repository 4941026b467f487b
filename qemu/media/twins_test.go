// SPDX-License-Identifier: Apache-2.0

package media

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/qemu"
)

// TestTwins: a node that finds two copies of its image stops and names them,
// whichever of them it was started from, and whenever the second shows up.
func TestTwins(t *testing.T) {
	if !all() {
		t.Skip("SKIP here, part of make test-boot")
	}
	for _, c := range []struct{ board, bus, beside string }{
		{"vm-x86_64", "virtio", "nvme"}, {"pc-x86_64", "nvme", "usb"}, {"pc-x86_64", "usb", "nvme"},
	} {
		t.Run(c.bus+" with "+c.beside, func(t *testing.T) {
			disk := filepath.Join(images(t, c.board), image.MediumDisk)
			m := start(t, qemu.Options{Disk: disk, UEFI: &qemu.UEFI{Bus: c.bus, Extra: []qemu.ExtraDisk{{Bus: c.beside, File: disk}}}})
			if said := says(t, m, `ZOS STOPPED +\[(\S+)\]|msg=seed`); said[1] != "DISKS" {
				t.Errorf("it goes on: %s", said[0])
			}
			says(t, m, `nvme0n1p1`)
		})
	}
	// Two of a file that forgets what is written: an unplugged drive is gone.
	spare := func(disk string) []string {
		return []string{"-drive", "if=none,id=late,format=raw,snapshot=on,file=" + strings.ReplaceAll(disk, ",", ",,")}
	}
	stick := map[string]any{"driver": "usb-storage", "drive": "late", "serial": "late", "removable": true}

	t.Run("a stick that comes late", func(t *testing.T) {
		disk := filepath.Join(images(t, "pc-x86_64"), image.MediumDisk)
		m := start(t, qemu.Options{Disk: disk, UEFI: &qemu.UEFI{Bus: "nvme"}, Args: append(spare(disk), "-device", "qemu-xhci")})
		says(t, m, seedFrom(`/dev/nvme0n1p1`)) // nothing is known of a second yet
		if err := m.Plug(t.Context(), stick); err != nil {
			t.Fatal(err)
		}
		if said := says(t, m, `ZOS STOPPED +\[(\S+)\]`); said[1] != "DISKS" {
			t.Errorf("it stops for another reason: %s", said[0])
		}
		says(t, m, `on nvme0n1p1 .*and sda1\b`)
	})
	t.Run("the stick that it was started from comes late", func(t *testing.T) {
		disk := filepath.Join(images(t, "pc-x86_64"), image.MediumDisk)
		m := start(t, qemu.Options{Disk: disk, UEFI: &qemu.UEFI{Bus: "usb", Extra: []qemu.ExtraDisk{{Bus: "nvme", File: disk}}}, Args: spare(disk)})
		says(t, m, `msg="program started"`) // the firmware has read it all, and drivers are still to come
		if err := m.Unplug(t.Context(), "stick-disk0"); err != nil {
			t.Fatal(err)
		}
		if said := says(t, m, `msg="waiting for a boot medium|msg=seed|ZOS STOPPED`); !strings.Contains(said[0], "waiting") {
			t.Errorf("it does not wait for the stick: %s", said[0])
		}
		if err := m.Plug(t.Context(), stick); err != nil {
			t.Fatal(err)
		}
		if said := says(t, m, `ZOS STOPPED +\[(\S+)\]`); said[1] != "DISKS" {
			t.Errorf("it stops for another reason: %s", said[0])
		}
		says(t, m, `on nvme0n1p1 .*and sda1\b`)
	})
	t.Run("sticks in a node that works", func(t *testing.T) {
		disk, other := filepath.Join(images(t, "pc-x86_64"), image.MediumDisk), filepath.Join(images(t, "vm-x86_64"), image.MediumDisk)
		foreign := "if=none,id=foreign,format=raw,snapshot=on,file=" + strings.ReplaceAll(other, ",", ",,")
		m := start(t, qemu.Options{Disk: disk, UEFI: &qemu.UEFI{Bus: "nvme"}, Args: append(spare(disk), "-device", "qemu-xhci", "-drive", foreign)})
		says(t, m, seedFrom(`/dev/nvme0n1p1`))
		if err := m.Plug(t.Context(), map[string]any{"driver": "usb-storage", "drive": "foreign", "removable": true}); err != nil {
			t.Fatal(err)
		}
		if said := says(t, m, `ZOS STOPPED +\[(\S+)\]|no second disk with this image has shown up`); said[1] != "" {
			t.Fatalf("a stick with another image stops it: %s", said[0])
		}
		stick["id"] = "twin"
		if err := m.Plug(t.Context(), stick); err != nil {
			t.Fatal(err)
		}
		if said := says(t, m, `ZOS STOPPED +\[(\S+)\]|a disk that looks like the node's own was plugged in.* on nvme0n1p1 .*and sdb1\b`); said[1] != "" {
			t.Errorf("it stops while it works: %s", said[0])
		}
		says(t, m, `TROUBLE +.*two disks carry the same node image`)
		if err := m.Unplug(t.Context(), "twin"); err != nil {
			t.Fatal(err)
		}
		says(t, m, `the node's disk is alone again`)
	})
}
