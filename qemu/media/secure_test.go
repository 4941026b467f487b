// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/zos-node/zos/agent/pcrsig/measure"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/image/secureboot"
	"github.com/zos-node/zos/qemu"
)

var at = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// keyFolder makes one operator's keys, as zos node keys does.
func keyFolder(t *testing.T) (*secureboot.Keys, *secureboot.Signer) {
	t.Helper()
	k, err := secureboot.Generate("rig", at)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "keys")
	if err := k.Write(dir, at); err != nil {
		t.Fatal(err)
	}
	s, err := secureboot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k, s
}

// refusals are what firmware and systemd-boot say of a program that they do
// not start.
const refusals = `(?i)access denied|security violation|failed to start|error loading|bad signature`

// TestSecureBoot: firmware in setup mode takes the keys of the image's own boot
// partition without a key press and enforces them from then on; it starts the
// signed image, with what a TPM measured as the build predicted, and neither an
// altered one nor one of somebody else; words from outside do not get in.
func TestSecureBoot(t *testing.T) {
	if _, _, err := qemu.Firmware("amd64", true); err != nil {
		t.Skipf("SKIP Secure Boot: %v", err)
	}
	k, signer := keyFolder(t)
	r := request(t, "vm-x86_64", t.TempDir())
	r.Keys = signer
	res, err := image.Build(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(r.Out, image.MediumDisk)
	vars := filepath.Join(t.TempDir(), "vars.fd")
	options := func(disk string) qemu.Options {
		return qemu.Options{Disk: disk, UEFI: &qemu.UEFI{Bus: "virtio", Secure: true, Keep: vars}}
	}
	t.Run("enrolment", func(t *testing.T) { enrol(t, k, options(disk)) })
	if t.Failed() {
		return
	}
	iso := qemu.Options{Disk: filepath.Join(r.Out, image.MediumISO), SMBIOS: smbios(t)}
	t.Run("enrolment from the ISO", func(t *testing.T) {
		whole(t)
		o := iso
		o.UEFI = &qemu.UEFI{Bus: "cdrom", Secure: true, Keep: filepath.Join(t.TempDir(), "vars.fd")}
		enrol(t, k, o)
	})
	for name, other := range map[string]func(t *testing.T) (qemu.Options, func()){
		"the signed ISO": func(*testing.T) (qemu.Options, func()) {
			o := iso
			o.UEFI = &qemu.UEFI{Bus: "cdrom"}
			return o, func() {}
		},
		"the signed image by HTTP": func(t *testing.T) (qemu.Options, func()) {
			port, asked := serve(t, filepath.Join(r.Out, image.NetbootDir))
			p := proxyDHCP(t, fmt.Sprintf("http://10.0.2.2:%d/%s", port, image.NetbootUKI))
			return qemu.Options{Net: p.net, SMBIOS: smbios(t), UEFI: &qemu.UEFI{Net: &qemu.NetBoot{}}}, func() {
				if asked("/"+image.NetbootUKI) == 0 {
					t.Error("the UKI was not fetched: the boot came from elsewhere")
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			whole(t)
			o, after := other(t)
			o.UEFI.Secure, o.UEFI.Keep = true, vars
			m := start(t, o)
			if said := says(t, m, `msg="boot trust" .*secureBoot=(\S+)|ZOS STOPPED`); said[1] != "on" {
				t.Errorf("Secure Boot is %q, want on", said[1])
			}
			after()
		})
	}
	t.Run("the signed image", func(t *testing.T) {
		o := options(disk)
		o.UEFI.TPM = startTPM(t)
		m := start(t, o)
		said := says(t, m, `msg="boot trust" .*secureBoot=(\S+).* pcr11=(\S+) pcr12=(\S+)|ZOS STOPPED`)
		if said[1] != "on" {
			t.Errorf("Secure Boot is %q, want on", said[1])
		}
		if o.UEFI.TPM != "" && (said[2] != res.PCR11 || said[3] != "none") {
			t.Errorf("register 11 is %s, predicted %s; register 12 is %s, want none", said[2], res.PCR11, said[3])
		}
		if o.UEFI.TPM != "" {
			if said := says(t, m, `msg="the node's state was made" .*key=(\S+)`); said[1] != "sealed" {
				t.Errorf("the node's key is %s", said[1])
			}
		}
	})
	t.Run("words from outside", func(t *testing.T) {
		whole(t)
		o := options(disk)
		o.SMBIOS = []string{"io.systemd.stub.kernel-cmdline-extra=rdinit=/bin/agent"}
		m := start(t, o)
		if said := says(t, m, `ZOS STOPPED +\[(\S+)\]|program started|Kernel panic`); said[1] != "CMDLINE" {
			t.Errorf("refused %q", said[1])
		}
	})
	t.Run("allowed words from outside are measured", func(t *testing.T) {
		whole(t)
		const words = "loglevel=5"
		o := options(disk)
		o.SMBIOS = []string{"io.systemd.stub.kernel-cmdline-extra=" + words}
		if o.UEFI.TPM = startTPM(t); o.UEFI.TPM == "" {
			t.Skip("SKIP words from outside in register 12: no swtpm")
		}
		// The stub measures them as the firmware has text: UTF-16, with its end.
		var want measure.Register
		text := []byte{}
		for _, c := range utf16.Encode([]rune(words + "\x00")) {
			text = binary.LittleEndian.AppendUint16(text, c)
		}
		want.Extend(text)
		m := start(t, o)
		said := says(t, m, `msg="boot trust" .*pcr11=(\S+) pcr12=(\S+)|ZOS STOPPED`)
		if said[1] != res.PCR11 || said[2] != hex.EncodeToString(want[:]) {
			t.Errorf("register 11 is %s, predicted %s; register 12 is %s, want %x", said[1], res.PCR11, said[2], want)
		}
	})
	for name, change := range wrongImages(t, r) {
		t.Run(name, func(t *testing.T) {
			if name != "an altered image" {
				whole(t)
			}
			bad := filepath.Join(t.TempDir(), "bad.img")
			if err := image.Rewrite(disk, bad, func(b *image.Boot) { b.UKI = change(b.UKI) }); err != nil {
				t.Fatal(err)
			}
			m := start(t, options(bad))
			if said := says(t, m, refusals+`|program started|ZOS STOPPED`); !regexp.MustCompile(refusals).MatchString(said[0]) {
				t.Errorf("it was started: %s", said[0])
			}
		})
	}
}

// enrol boots a medium with a firmware in setup mode, which has to take the keys.
func enrol(t *testing.T, k *secureboot.Keys, o qemu.Options) {
	t.Helper()
	m := start(t, o)
	ctx, cancel := context.WithTimeout(context.Background(), limitOf(o.Arch))
	defer cancel()
	// It starts the machine again when it is done, which ends the emulator.
	if err := m.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(o.UEFI.Keep)
	if err != nil {
		t.Fatal(err)
	}
	have, err := qemu.ReadVars(b)
	if err != nil {
		t.Fatal(err)
	}
	for name, list := range k.Lists() {
		if got, _ := have.Find(name); !bytes.Equal(got, list) {
			t.Errorf("the firmware's %s has %d bytes, want our list of %d", name, len(got), len(list))
		}
	}
}

// wrongImages are what firmware has to refuse, each made from the right one.
func wrongImages(t *testing.T, r image.Request) map[string]func([]byte) []byte {
	return map[string]func([]byte) []byte{
		"an altered image": func(uki []byte) []byte {
			bad := bytes.Clone(uki)
			bad[len(bad)/2] ^= 1
			return bad
		},
		"somebody else's image": func([]byte) []byte {
			foreign, err := foreignUKI(t, r)
			if err != nil {
				t.Fatal(err)
			}
			return foreign
		},
	}
}

// whole leaves a case out of make test.
func whole(t *testing.T) {
	t.Helper()
	if !all() {
		t.Skip("SKIP here, part of make test-boot")
	}
}

// foreignUKI is the same program, signed by other keys.
func foreignUKI(t *testing.T, r image.Request) ([]byte, error) {
	_, other := keyFolder(t)
	b, err := os.ReadFile(filepath.Join(r.Out, image.MediumUKI))
	if err != nil {
		return nil, err
	}
	u, err := image.ReadUKI(b)
	if err != nil {
		return nil, err
	}
	if u.Stub, err = stub(r); err != nil {
		return nil, err
	}
	if b, err = u.Build(); err != nil {
		return nil, err
	}
	return other.DB.Sign(b)
}

// stub is the one that the image's UKI was made with.
func stub(r image.Request) ([]byte, error) {
	e, err := r.Parts.EFI(context.Background())
	if err != nil {
		return nil, err
	}
	return e.Stub, nil
}

var warnTPM sync.Once

// startTPM returns swtpm's socket, or nothing where there is no swtpm.
func startTPM(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err != nil {
		warnTPM.Do(func() { t.Logf("SKIP TPM: %v", err) })
		return ""
	}
	tpm, err := qemu.StartTPM(context.Background(), filepath.Join(t.TempDir(), "tpm"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tpm.Close(); err != nil {
			t.Error(err)
		}
	})
	return tpm.Socket
}
