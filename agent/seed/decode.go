// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"

	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec/strict"
)

const (
	// MaxBytes bounds a seed; an SMBIOS string holds it in base64.
	MaxBytes = 32 << 10

	apiVersion = "zos/v1"
	kind       = "Seed"
	modeDHCP   = "dhcp"
	modeStatic = "static"
	labelMax   = 63
	macLen     = 6
)

// Decode reads a seed strictly and checks what it means. An error names the
// field.
func Decode(b []byte) (*Seed, error) {
	var s Seed
	if err := strict.Decode(b, &s, MaxBytes); err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	return &s, nil
}

// Encode writes a seed that Decode takes back.
func (s *Seed) Encode() ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	return strict.Encode(s)
}

func (s *Seed) validate() error {
	if s.APIVersion != apiVersion {
		return strict.Errorf("apiVersion", "is %q, want %q", s.APIVersion, apiVersion)
	}
	if s.Kind != kind {
		return strict.Errorf("kind", "is %q, want %q", s.Kind, kind)
	}
	if len(s.Name) > labelMax || !regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`).MatchString(s.Name) {
		return strict.Errorf("name", "is %q, want a DNS label", s.Name)
	}
	if len(s.Ledger) == 0 {
		return strict.Errorf("ledger", "is empty, want at least one URL")
	}
	for field, list := range map[string][]string{"ledger": s.Ledger, "mirrors": s.Mirrors} {
		for i, u := range list {
			p, err := url.Parse(u)
			if err != nil || (p.Scheme != "http" && p.Scheme != "https") || p.Host == "" || p.RawQuery != "" || p.Fragment != "" || p.User != nil {
				return strict.Errorf(strict.Index(field, i), "is %q, want an http or https URL", u)
			}
		}
	}
	if _, err := sign.ParseSigner([]byte(s.VoucherKey)); err != nil {
		return strict.Errorf("voucherKey", "is no private key: %v", err)
	}
	return s.Network.validate()
}

func (n *Network) validate() error {
	if n.MAC != "" {
		if hw, err := net.ParseMAC(n.MAC); err != nil || len(hw) != macLen || hw.String() != n.MAC {
			return strict.Errorf("network.mac", "is %q, want an address such as 52:54:00:12:34:56", n.MAC)
		}
	}
	for i, d := range n.DNS {
		if a, err := netip.ParseAddr(d); err != nil || a.Zone() != "" {
			return strict.Errorf(strict.Index("network.dns", i), "is %q, want an IP address", d)
		}
	}
	switch n.Mode {
	case modeDHCP:
		if n.Address != "" || n.Gateway != "" {
			return strict.Errorf("network.address", "and network.gateway must be empty with mode dhcp")
		}
	case modeStatic:
		if p, err := netip.ParsePrefix(n.Address); err != nil || !p.Addr().Is4() {
			return strict.Errorf("network.address", "is %q, want IPv4 with a prefix length", n.Address)
		}
		if n.Gateway == "" {
			return nil
		}
		if a, err := netip.ParseAddr(n.Gateway); err != nil || !a.Is4() {
			return strict.Errorf("network.gateway", "is %q, want an IPv4 address or nothing", n.Gateway)
		}
	default:
		return strict.Errorf("network.mode", "is %q, want dhcp or static", n.Mode)
	}
	return nil
}
