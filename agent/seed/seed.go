// SPDX-License-Identifier: Apache-2.0

// Package seed holds what a node is told before it can reach the ledger.
//
// The trust root stands in the initramfs (RootPath), the seed in the
// initramfs, on the boot medium's ESP or in an SMBIOS OEM string; the first
// of these sources that has one is used whole, never merged with another.
package seed

import "github.com/zos-node/zos/sign"

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
	APIVersion string        `json:"apiVersion"` // "zos/v1"
	Kind       string        `json:"kind"`       // "Seed"
	Name       string        `json:"name"`       // of the node, a DNS label
	Ledger     []string      `json:"ledger"`     // base URLs of ledger mirrors, none trusted; the first that takes entries gets them
	Mirrors    []string      `json:"mirrors"`    // base URLs of chunk mirrors, none trusted, in order of preference
	Voucher    sign.Envelope `json:"voucher"`
	// VoucherKey is the private key of the voucher (OpenSSH format): enrolling
	// needs it. It is a secret of the boot medium.
	VoucherKey string  `json:"voucherKey"`
	Network    Network `json:"network"`
}

// Network says how the uplink gets its address.
type Network struct {
	Mode    string   `json:"mode"`    // "dhcp" or "static"
	MAC     string   `json:"mac"`     // which link; "" takes the first with carrier
	Address string   `json:"address"` // static: CIDR; else ""
	Gateway string   `json:"gateway"` // static: or ""
	DNS     []string `json:"dns"`
}
