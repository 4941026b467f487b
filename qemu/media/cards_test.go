// SPDX-License-Identifier: Apache-2.0

package media

import (
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/qemu"
)

// TestCards: network cards beside virtio's that QEMU has and boards drive. The node
// gets its address through each.
func TestCards(t *testing.T) {
	if !all() {
		t.Skip("SKIP here, part of make test-boot")
	}
	for _, c := range []struct{ board, card string }{{"vm-x86_64", "vmxnet3"}, {"pc-x86_64", "e1000e"}} {
		t.Run(c.board+"/"+c.card, func(t *testing.T) {
			m := start(t, qemu.Options{
				Disk: filepath.Join(images(t, c.board), image.MediumDisk), UEFI: &qemu.UEFI{Bus: "virtio"},
				Net: []string{"-netdev", "user,id=n0", "-device", c.card + ",netdev=n0,romfile="},
			})
			if got := says(t, m, `msg=uplink .*link=(\S+) addresses="?\[10\.0\.2\.15/24|ZOS STOPPED`); len(got[1]) == 0 {
				t.Fatalf("it stopped: %s", got[0])
			}
		})
	}
}
