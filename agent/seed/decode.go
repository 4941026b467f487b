// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"bytes"
	"fmt"
	"net/url"
	"regexp"

	"github.com/zos-node/zos/agent/recovery"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec/strict"
)

const (
	// MaxBytes bounds a seed; an SMBIOS string holds it in base64.
	MaxBytes = 32 << 10

	kind        = "Seed"
	labelMax    = 63
	networksMax = 8
)

// oldVersions had other fields.
var oldVersions = []string{"zos/v1", "zos/v2"}

// Decode reads a seed strictly and checks what it means. An error names the
// field.
func Decode(b []byte) (*Seed, error) {
	var s Seed
	if err := strict.Decode(b, &s, MaxBytes); err != nil {
		for _, old := range oldVersions {
			if bytes.Contains(b, []byte(`"apiVersion":"`+old+`"`)) {
				return nil, fmt.Errorf("seed: is of version %s, this image wants %s: make it anew with zos node seed (%w)", old, Version, err)
			}
		}
		return nil, fmt.Errorf("seed: %w", err)
	}
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	return &s, nil
}

// DecodeNetwork reads one configuration of the uplink by itself, as strictly.
func DecodeNetwork(b []byte) (*Network, error) {
	var n Network
	if err := strict.Decode(b, &n, MaxBytes); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	if err := n.validate("network"); err != nil {
		return nil, err
	}
	return &n, nil
}

// Encode writes a seed that Decode takes back.
func (s *Seed) Encode() ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("seed: %w", err)
	}
	return strict.Encode(s)
}

func (s *Seed) validate() error {
	if s.APIVersion != Version {
		return strict.Errorf("apiVersion", "is %q, want %q", s.APIVersion, Version)
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
	if len(s.Networks) == 0 || len(s.Networks) > networksMax {
		return strict.Errorf("networks", "has %d entries, want 1 to %d", len(s.Networks), networksMax)
	}
	for i := range s.Networks {
		if err := s.Networks[i].validate(strict.Index("networks", i)); err != nil {
			return err
		}
	}
	if len(s.Recovery) > recovery.MaxRecipients {
		return strict.Errorf("recovery", "has %d entries, at most %d are allowed", len(s.Recovery), recovery.MaxRecipients)
	}
	for i, k := range s.Recovery {
		if _, err := recovery.Recipients([]string{k}); err != nil {
			return strict.Errorf(strict.Index("recovery", i), "is no public key of age (age1…), ssh-ed25519 or ssh-rsa: %v", err)
		}
	}
	return nil
}
