// SPDX-License-Identifier: Apache-2.0

// Package ra hears what IPv6 routers advertise (RFC 4861): which prefixes a
// node may make itself an address in, who is a router and for how long, and,
// what the kernel leaves alone, the name servers (RFC 8106).
//
// Parse is a pure function from bytes. Table keeps what several routers said
// and lets each thing go when its lifetime is over. Client solicits and
// listens on a real link.
package ra

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	typeAdvert  = 134
	typeSolicit = 133

	headLen = 16 // of an advertisement before its options
	unit    = 8  // option lengths are counted in these

	optPrefix = 3
	optMTU    = 5
	optRDNSS  = 25
	optDNSSL  = 31

	// Forever is the lifetime of all ones.
	Forever = 0xffffffff * time.Second
	// maxNames bounds the search names of one option: an advertisement is at
	// most a packet, but names can be one byte long.
	maxNames  = 32
	maxLabel  = 63
	minMTU    = 1280
	slaacBits = 64 // a prefix of another length makes no address (RFC 4862 5.5.3 d)
)

// Advert is one router advertisement.
type Advert struct {
	Managed    bool          // M: addresses come by DHCPv6
	Other      bool          // O: name servers and the like come by DHCPv6
	Preference int           // of the router: -1, 0 or 1 (RFC 4191)
	Lifetime   time.Duration // as a default router; 0: it is none
	MTU        int           // 0: not said
	Prefixes   []Prefix
	RDNSS      []Server
	DNSSL      []Name
}

// Prefix is a prefix information option.
type Prefix struct {
	Prefix     netip.Prefix
	OnLink     bool // L
	Autonomous bool // A: a node makes itself an address in it
	Valid      time.Duration
	Preferred  time.Duration
}

// Server is a name server, Name a search domain, with their lifetimes.
type (
	Server struct {
		Address  netip.Addr
		Lifetime time.Duration
	}
	Name struct {
		Name     string
		Lifetime time.Duration
	}
)

// Parse reads an ICMPv6 router advertisement, which starts with its type. The
// checksum was the kernel's to check, source and hop limit are the caller's.
// A malformed option makes all of it invalid (RFC 4861 6.1.2), an unknown one
// is passed over.
func Parse(b []byte) (*Advert, error) {
	if len(b) < headLen || b[0] != typeAdvert || b[1] != 0 {
		return nil, errors.New("no router advertisement")
	}
	a := &Advert{Managed: b[5]&0x80 != 0, Other: b[5]&0x40 != 0, Lifetime: time.Duration(binary.BigEndian.Uint16(b[6:])) * time.Second}
	switch b[5] >> 3 & 3 {
	case 1:
		a.Preference = 1
	case 3:
		a.Preference = -1
	}
	for rest := b[headLen:]; len(rest) > 0; {
		if len(rest) < 2 || rest[1] == 0 || int(rest[1])*unit > len(rest) {
			return nil, fmt.Errorf("option at byte %d is cut off or empty", len(b)-len(rest))
		}
		n := int(rest[1]) * unit
		if err := a.option(rest[0], rest[:n]); err != nil {
			return nil, fmt.Errorf("option %d at byte %d: %w", rest[0], len(b)-len(rest), err)
		}
		rest = rest[n:]
	}
	return a, nil
}

func (a *Advert) option(kind byte, o []byte) error {
	switch kind {
	case optPrefix:
		const length = 32
		if len(o) != length || o[2] > 128 {
			return errors.New("is no prefix")
		}
		p := Prefix{OnLink: o[3]&0x80 != 0, Autonomous: o[3]&0x40 != 0, Valid: seconds(o[4:]), Preferred: seconds(o[8:]),
			Prefix: netip.PrefixFrom(address(o[16:]), int(o[2])).Masked()}
		// RFC 4862 5.5.3: no link-local prefix; preferred no longer than valid.
		if p.Prefix.Addr().IsLinkLocalUnicast() || p.Prefix.Addr().IsMulticast() || p.Preferred > p.Valid {
			return nil
		}
		p.Autonomous = p.Autonomous && p.Prefix.Bits() == slaacBits
		a.Prefixes = append(a.Prefixes, p)
	case optMTU:
		if len(o) != unit {
			return errors.New("is no MTU")
		}
		if mtu := binary.BigEndian.Uint32(o[4:]); mtu >= minMTU && mtu <= 1<<16 {
			a.MTU = int(mtu)
		}
	case optRDNSS:
		const head, size = 8, 16
		if len(o) < head+size || (len(o)-head)%size != 0 {
			return errors.New("is no list of servers")
		}
		for x := o[head:]; len(x) > 0; x = x[size:] {
			if s := address(x); !s.IsUnspecified() && !s.IsMulticast() && !s.IsLoopback() {
				a.RDNSS = append(a.RDNSS, Server{s, seconds(o[4:])})
			}
		}
	case optDNSSL:
		if len(o) < 2*unit {
			return errors.New("is no list of names")
		}
		names, err := names(o[unit:])
		if err != nil {
			return err
		}
		for _, n := range names {
			a.DNSSL = append(a.DNSSL, Name{n, seconds(o[4:])})
		}
	}
	return nil
}

func seconds(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Second
}

func address(b []byte) netip.Addr { return netip.AddrFrom16([16]byte(b[:16])) }

// names reads domain names in DNS wire format without compression; zeroes pad
// the end.
func names(b []byte) ([]string, error) {
	var out []string
	for len(b) > 0 && b[0] != 0 {
		var labels []string
		for {
			if len(b) == 0 {
				return nil, errors.New("a name does not end")
			}
			n := int(b[0])
			b = b[1:]
			if n == 0 {
				break
			}
			if n > maxLabel || n > len(b) {
				return nil, errors.New("a label is too long")
			}
			if !label(b[:n]) {
				return nil, fmt.Errorf("label %q is no host name", b[:n])
			}
			labels = append(labels, string(b[:n]))
			b = b[n:]
		}
		if out = append(out, strings.Join(labels, ".")); len(out) > maxNames {
			return nil, errors.New("has too many names")
		}
	}
	return out, nil
}

// label keeps what ends up in resolv.conf free of spaces and new lines.
func label(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_'
	})
}
