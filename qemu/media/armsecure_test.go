// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/qemu"
)

// TestSecureBootArm: Debian's firmware for arm64 takes the keys as OVMF does, and
// enforces them: it starts the signed image, with what a TPM measured as the
// build predicted, and neither an altered one nor one of somebody else.
func TestSecureBootArm(t *testing.T) {
	whole(t)
	if _, _, err := qemu.Firmware("arm64", true); err != nil {
		t.Skipf("SKIP Secure Boot on arm64: %v", err)
	}
	k, signer := keyFolder(t)
	r := request(t, "qemu-arm64", t.TempDir())
	r.Keys = signer
	res, err := image.Build(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(r.Out, image.MediumDisk)
	vars := filepath.Join(t.TempDir(), "vars.fd")
	options := func(disk string) qemu.Options {
		return qemu.Options{Arch: r.Board.Arch, Disk: disk, UEFI: &qemu.UEFI{Bus: "virtio", Secure: true, Keep: vars}}
	}
	t.Run("enrolment", func(t *testing.T) { enrol(t, k, options(disk)) })
	if t.Failed() {
		return
	}
	t.Run("the signed image", func(t *testing.T) {
		o := options(disk)
		o.UEFI.TPM = startTPM(t)
		m := start(t, o)
		said := saysWithin(t, m, armLimit, `msg="boot trust" .*secureBoot=(\S+).* pcr11=(\S+) pcr12=(\S+)|ZOS STOPPED`)
		if said[1] != "on" {
			t.Errorf("Secure Boot is %q, want on", said[1])
		}
		if o.UEFI.TPM == "" {
			return
		}
		if said[2] != res.PCR11 || said[3] != "none" {
			t.Errorf("register 11 is %s, predicted %s; register 12 is %s, want none", said[2], res.PCR11, said[3])
		}
		if said := saysWithin(t, m, armLimit, `msg="the node's state was made" .*key=(\S+)`); said[1] != "sealed" {
			t.Errorf("the node's key is %s", said[1])
		}
	})
	for name, change := range wrongImages(t, r) {
		t.Run(name, func(t *testing.T) {
			bad := filepath.Join(t.TempDir(), "bad.img")
			if err := image.Rewrite(disk, bad, func(b *image.Boot) { b.UKI = change(b.UKI) }); err != nil {
				t.Fatal(err)
			}
			m := start(t, options(bad))
			if said := saysWithin(t, m, armLimit, refusals+`|program started|ZOS STOPPED`); !regexp.MustCompile(refusals).MatchString(said[0]) {
				t.Errorf("it was started: %s", said[0])
			}
		})
	}
}
