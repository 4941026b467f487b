// SPDX-License-Identifier: Apache-2.0

package media

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/qemu"
)

// row is one way to boot.
type row struct {
	board  string
	medium string // file of the build; "" when there is no disk
	bus    string // one of qemu.Buses; or http, http-dhcp, tftp, ipxe
	seed   string // where the agent's seed has to come from
	fast   bool   // part of make test
	// beside is the bus of a second disk, node.img, that only the node reads:
	// Debian's OVMF cannot boot from these controllers.
	beside string
}

const fromSMBIOS = "SMBIOS"

var matrix = []row{
	{"vm-x86_64", image.MediumDisk4K, "nvme-4k", `/dev/nvme0n1p1:`, true, ""},
	{"vm-x86_64", image.MediumISO, "cdrom", fromSMBIOS, false, ""},
	{"vm-x86_64", "", "http", fromSMBIOS, true, ""},
	{"vm-x86_64", image.MediumDisk, "virtio", `/dev/vda1:`, false, ""},
	{"vm-x86_64", image.MediumDisk4K, "virtio-4k", `/dev/vda1:`, false, ""},
	{"vm-x86_64", image.MediumDisk, "nvme", `/dev/nvme0n1p1:`, false, ""},
	{"vm-x86_64", image.MediumDisk, "ahci", `/dev/sda1:`, false, ""},
	{"vm-x86_64", image.MediumDisk, "scsi", `/dev/sda1:`, false, ""},
	{"vm-x86_64", image.MediumISO, "cdrom", `/dev/sda1:`, false, "pvscsi"},
	{"vm-x86_64", "", "http-dhcp", fromSMBIOS, false, ""},
	{"vm-x86_64", "", "tftp", fromSMBIOS, false, ""},
	{"vm-x86_64", "", "ipxe", fromSMBIOS, false, ""},
	{"pc-x86_64", image.MediumDisk, "usb", `/dev/sda1:`, false, ""},
	{"pc-x86_64", image.MediumISO, "usb", `/dev/sda1:`, false, ""},
	{"pc-x86_64", image.MediumISO, "cdrom", fromSMBIOS, false, ""},
	{"pc-x86_64", image.MediumDisk, "nvme", `/dev/nvme0n1p1:`, false, ""},
	{"pc-x86_64", image.MediumDisk, "ahci", `/dev/sda1:`, false, ""},
	{"pc-x86_64", image.MediumISO, "cdrom", `/dev/sda1:`, false, "megasas"},
	{"pc-x86_64", "", "http", fromSMBIOS, false, ""},
	{"qemu-arm64", image.MediumDisk, "virtio", `/dev/vda1:`, false, ""},
	{"qemu-arm64", image.MediumISO, "usb", fromSMBIOS, false, ""},
	{"qemu-arm64", "", "http-dhcp", fromSMBIOS, false, ""},
	{"qemu-arm64", "", "tftp", fromSMBIOS, false, ""},
	{"qemu-x86_64", image.MediumDisk, "virtio", `/dev/vda1:`, false, ""},
}

func (r row) name() string {
	medium := r.medium
	if medium == "" {
		medium = "netboot"
	}
	if r.beside != "" {
		medium += "+" + r.beside
	}
	return strings.Join([]string{r.board, medium, r.bus}, " ")
}

// TestMedia boots each row until the agent has its seed.
func TestMedia(t *testing.T) {
	var table []string
	for _, r := range matrix {
		if !r.fast && !all() {
			continue
		}
		t.Run(strings.ReplaceAll(r.name(), " ", "/"), func(t *testing.T) {
			begun := time.Now()
			m, fetched := boot(t, r)
			from := saysWithin(t, m, limitOf(built.res[r.board].Arch), `msg=seed .*from="?([^" ]+)|ZOS STOPPED`)
			if !strings.HasPrefix(from[1], r.seed) {
				t.Errorf("the seed came from %q, want %q", from[1], r.seed)
			}
			fetched()
			line := fmt.Sprintf("%-50s seed from %-24s %3.0f s", r.name(), from[1], time.Since(begun).Seconds())
			t.Log(line) // at once: a long run may be ended
			table = append(table, line)
		})
	}
	t.Logf("media × bus × board, OVMF without Secure Boot:\n%s", strings.Join(table, "\n"))
}

// boot starts a row's machine. fetched checks that a netboot really fetched.
func boot(t *testing.T, r row) (*qemu.Machine, func()) {
	t.Helper()
	dir := images(t, r.board)
	u := &qemu.UEFI{Bus: r.bus}
	o := qemu.Options{UEFI: u, Arch: built.res[r.board].Arch}
	fetched := func() {}
	if r.seed == fromSMBIOS {
		o.SMBIOS = smbios(t)
	}
	if r.beside != "" {
		u.Extra = []qemu.ExtraDisk{{Bus: r.beside, File: filepath.Join(dir, image.MediumDisk)}}
	}
	if r.medium != "" {
		o.Disk = filepath.Join(dir, r.medium)
		return start(t, o), fetched
	}
	u.Bus = ""
	netboot := filepath.Join(dir, image.NetbootDir)
	if r.bus == "tftp" {
		s := startSite(t, netboot)
		o.Net, u.Net = s.net, &qemu.NetBoot{}
		return start(t, o), func() { s.served(t) }
	}
	port, asked := serve(t, netboot)
	switch r.bus {
	case "http":
		u.Net = &qemu.NetBoot{}
		u.Vars = func() (qemu.Vars, error) {
			return qemu.BootURL(fmt.Sprintf("http://10.0.2.2:%d/%s", port, image.NetbootUKI)), nil
		}
	case "http-dhcp":
		p := proxyDHCP(t, fmt.Sprintf("http://10.0.2.2:%d/%s", port, image.NetbootUKI))
		o.Net, u.Net = p.net, &qemu.NetBoot{}
		return start(t, o), func() {
			if p.offers.Load() == 0 || asked("/"+image.NetbootUKI) == 0 {
				t.Errorf("%d offers, the UKI was fetched %d times: the boot came from elsewhere", p.offers.Load(), asked("/"+image.NetbootUKI))
			}
		}
	case "ipxe":
		u.Net = &qemu.NetBoot{IPXE: true, File: fmt.Sprintf("http://10.0.2.2:%d/boot.ipxe", port)}
	}
	return start(t, o), func() {
		if n := asked("/" + image.NetbootUKI); n == 0 {
			t.Error("the UKI was not fetched: the boot came from elsewhere")
		}
	}
}
