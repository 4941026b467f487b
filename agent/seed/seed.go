// SPDX-License-Identifier: Apache-2.0

// Package seed holds what a node is told before it can reach the ledger.
//
// The trust root stands in the initramfs (RootPath), the seed in the
// initramfs, on the boot medium's ESP or in an SMBIOS OEM string; the first
// of these sources that has one is used whole, never merged with another.
package seed

import "github.com/zos-node/zos/sign"

// Version is the apiVersion of a seed.
const Version = "zos/v3"

const (
	// RootPath is the trust root in the initramfs: an envelope of ledger.Root.
	RootPath = "/etc/zos/root.json"
	// InitramfsPath is where a seed that is baked into the image stands.
	InitramfsPath = "/etc/zos/seed.json"
	// MediumPath is the seed's path on the ESP (FAT) of the boot medium.
	MediumPath = "zos/seed.json"
	// SMBIOSPrefix starts a type 11 OEM string that holds a seed in base64.
	SMBIOSPrefix = "zos.seed="
	// ReleasePath says which image this is: os-release format.
	ReleasePath = "/etc/os-release"
)

// Seed is strict JSON: every field present, none unknown.
type Seed struct {
	APIVersion string        `json:"apiVersion"` // Version
	Kind       string        `json:"kind"`       // "Seed"
	Name       string        `json:"name"`       // of the node, a DNS label
	Ledger     []string      `json:"ledger"`     // base URLs of ledger mirrors, none trusted; the first that takes entries gets them
	Mirrors    []string      `json:"mirrors"`    // base URLs of chunk mirrors, none trusted, in order of preference
	Voucher    sign.Envelope `json:"voucher"`
	// VoucherKey is the private key of the voucher (OpenSSH format): enrolling
	// needs it. It is a secret of the boot medium.
	VoucherKey string `json:"voucherKey"`
	// Networks are ways to the outside in order of preference: the first by
	// which the ledger is reached is used.
	Networks []Network `json:"networks"`
	// Recovery are public keys of operators, age's ("age1…") or SSH's: whoever has
	// one of them can open the node's state without its TPM. They count at the
	// first boot. Empty is allowed: what is sealed is then lost with the TPM.
	Recovery []string `json:"recovery"`
}

// Network is one complete configuration of the uplink.
type Network struct {
	// Links are the network cards that may be used, by hardware address
	// ("52:54:00:12:34:56") or kernel name ("eth0"), the best first; empty for
	// all that there are. A name may change with the kernel, an address stays.
	Links []string `json:"links"`
	// Bond joins all these cards to one: "lacp" (802.3ad) or "active-backup";
	// "none" uses one of them, the first that works.
	Bond string   `json:"bond"`
	VLAN int64    `json:"vlan"` // 1 to 4094; 0 is untagged
	IPv4 IP       `json:"ipv4"` // mode "dhcp", "static" or "off"
	IPv6 IP       `json:"ipv6"` // mode "auto" (what routers advertise), "dhcp", "static" or "off"
	DNS  []string `json:"dns"`  // name servers in place of those that are heard of
	NTP  []string `json:"ntp"`  // time servers, addresses or names, in place of those that are heard of
}

// IP is how one family gets its address.
type IP struct {
	Mode    string `json:"mode"`
	Address string `json:"address"` // static: CIDR; else ""
	Router  string `json:"router"`  // static: or ""; on the address's own link
}

// The values of Network's fields.
const (
	BondNone         = "none"
	BondLACP         = "lacp"
	BondActiveBackup = "active-backup"

	ModeDHCP   = "dhcp"
	ModeStatic = "static"
	ModeAuto   = "auto"
	ModeOff    = "off"
)

// Automatic is the network of a node that was told nothing: any card, IPv4 by
// DHCP, IPv6 as the routers say.
func Automatic() Network {
	return Network{Links: []string{}, Bond: BondNone, IPv4: IP{Mode: ModeDHCP}, IPv6: IP{Mode: ModeAuto}, DNS: []string{}, NTP: []string{}}
}
