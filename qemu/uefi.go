// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// UEFI is a boot through firmware on other ways than a virtio disk.
type UEFI struct {
	Bus   string               // one of Buses; "": no disk at all
	Extra []ExtraDisk          // further disks, behind the one that is booted
	Net   *NetBoot             // nil: the network is not booted from
	Vars  func() (Vars, error) // variables of the firmware before the boot; nil: Debian's empty ones
	// Secure starts the firmware that enforces Secure Boot, on x86 with its
	// variables behind system management mode. Debian's only one for arm64 does too.
	Secure bool
	Keep   string // file for the variables; "": forgotten with the machine
	// Write lets what the machine writes reach the file of its disk; without it
	// all of that is forgotten with the machine.
	Write bool
	TPM   string // control socket of swtpm; "": no TPM
	Args  []string
}

// ExtraDisk is a disk beside the one that is booted.
type ExtraDisk struct{ Bus, File string }

// NetBoot is a boot from the network.
type NetBoot struct {
	File string // the boot file that QEMU's own DHCP names: a URL for iPXE; "": it names none
	// IPXE runs Debian's iPXE from the card's ROM instead of the firmware's own
	// network boot.
	IPXE bool
}

// Buses are the ways to attach a disk or a medium: {id} is the drive's, {n} its
// place in the boot order.
var Buses = map[string][]string{
	"virtio":    {"-device", "virtio-blk-pci,drive={id},serial={id},bootindex={n}"},
	"virtio-4k": {"-device", "virtio-blk-pci,drive={id},serial={id},bootindex={n},logical_block_size=4096,physical_block_size=4096"},
	"nvme":      {"-device", "nvme,drive={id},serial={id},bootindex={n}"},
	"nvme-4k":   {"-device", "nvme,serial={id}", "-device", "nvme-ns,drive={id},bootindex={n},logical_block_size=4096,physical_block_size=4096"},
	"ahci":      {"-device", "ide-hd,drive={id},serial={id},bootindex={n}"}, // q35's own controller
	"usb":       {"-device", "qemu-xhci", "-device", "usb-storage,id=stick-{id},drive={id},serial={id},bootindex={n},removable=on"},
	"cdrom":     {"-device", "ide-cd,drive={id},bootindex={n}"},
	"scsi":      {"-device", "virtio-scsi-pci", "-device", "scsi-hd,drive={id},serial={id},bootindex={n}"},
	"megasas":   {"-device", "megasas-gen2", "-device", "scsi-hd,drive={id},serial={id},bootindex={n}"},
	"pvscsi":    {"-device", "pvscsi", "-device", "scsi-hd,drive={id},serial={id},bootindex={n}"},
}

// secureFirmware lists the build that enforces Secure Boot; its variables
// start empty, in setup mode.
var secureFirmware = [][2]string{
	{"/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
	{"/usr/share/OVMF/OVMF_CODE.secboot.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
}

// armFirmware is Debian's for arm64.
var armFirmware = [][2]string{{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"}}

// ErrFirmware says that this machine has no such firmware.
var ErrFirmware = errors.New("no UEFI firmware: install Debian's package ovmf, for arm64 qemu-efi-aarch64")

// ArmTCG emulates an arm64 machine with EL2, so that KVM works inside it.
var ArmTCG = Accel{
	Name: "tcg", Why: "arm64 is emulated", CPUs: 1,
	Args: []string{"-M", "virt,virtualization=on,gic-version=3", "-accel", "tcg,thread=multi", "-cpu", "max,pauth-impdef=on"},
}

// Emulator is the program's name on Debian.
func Emulator(arch string) string {
	if arch == "arm64" {
		return "qemu-system-aarch64"
	}
	return Binary
}

// Firmware finds the code and the empty variables.
func Firmware(arch string, secure bool) (code, vars string, err error) {
	list := firmware
	switch {
	case arch == "arm64":
		list = armFirmware
	case secure:
		list = secureFirmware
	}
	for _, pair := range list {
		if _, err := os.Stat(pair[0]); err == nil {
			return pair[0], pair[1], nil
		}
	}
	return "", "", ErrFirmware
}

// network completes the user network's options and chooses the card.
func (u *UEFI) network(netdev string) (string, string) {
	nic := "virtio-net-pci,netdev=n0"
	if u.Net == nil {
		return netdev, nic + ",romfile="
	}
	if u.Net.File != "" {
		netdev += ",bootfile=" + quoted(u.Net.File)
	}
	if !u.Net.IPXE {
		nic += ",romfile="
	}
	if u.Bus == "" && u.Net.File != "" {
		nic += ",bootindex=0"
	}
	return netdev, nic
}

func (u *UEFI) args(dir, disk, arch string) ([]string, error) {
	code, empty, err := Firmware(arch, u.Secure)
	if err != nil {
		return nil, err
	}
	own := u.Keep
	if own == "" {
		own = filepath.Join(dir, "vars.fd")
	}
	if _, err := os.Stat(own); errors.Is(err, os.ErrNotExist) {
		b, err := os.ReadFile(empty)
		if err != nil {
			return nil, fmt.Errorf("OVMF variables: %w", err)
		}
		if u.Vars != nil {
			add, err := u.Vars()
			if err != nil {
				return nil, err
			}
			if b, err = add.Into(b); err != nil {
				return nil, err
			}
		}
		if err := os.WriteFile(own, b, 0o600); err != nil {
			return nil, fmt.Errorf("OVMF variables: %w", err)
		}
	}
	args := []string{
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + quoted(code),
		"-drive", "if=pflash,format=raw,unit=1,file=" + quoted(own),
	}
	if u.Secure && arch != "arm64" { // which has no such mode; whoever runs the kernel could write its variables
		args = append(args, "-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1")
	}
	if u.TPM != "" {
		// Not tpm-tis: its handshakes wait for swtpm itself, and Linux gives them less
		// than a second, which a loaded machine does not. QEMU's arm64 machine has no other.
		device := "tpm-crb"
		if arch == "arm64" {
			device = "tpm-tis-device"
		}
		args = append(args, "-chardev", "socket,id=tpm,path="+quoted(u.TPM), "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", device+",tpmdev=tpm0")
	}
	disks := u.Extra
	if u.Bus != "" {
		disks = append([]ExtraDisk{{u.Bus, disk}}, disks...)
	}
	for i, d := range disks {
		more, err := d.args(i, u.Write)
		if err != nil {
			return nil, err
		}
		args = append(args, more...)
	}
	return append(args, u.Args...), nil
}

func (d ExtraDisk) args(index int, write bool) ([]string, error) {
	how, ok := Buses[d.Bus]
	if !ok {
		return nil, fmt.Errorf("no way to attach a disk is called %q", d.Bus)
	}
	id := fmt.Sprintf("disk%d", index)
	forget := ",snapshot=on"
	if write {
		forget = ""
	}
	drive := "if=none,id=" + id + ",format=raw" + forget + ",file=" + quoted(d.File)
	if d.Bus == "cdrom" {
		drive = "if=none,id=" + id + ",format=raw,media=cdrom,readonly=on,file=" + quoted(d.File)
	}
	args := []string{"-drive", drive}
	fill := strings.NewReplacer("{id}", id, "{n}", strconv.Itoa(index))
	for _, word := range how {
		args = append(args, fill.Replace(word))
	}
	return args, nil
}
