// SPDX-License-Identifier: Apache-2.0

package network

import (
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/nftables"
)

var update = flag.Bool("update", false, "write the golden files anew")

// shop has everything that rules are made for: an outbound and an isolated
// network, a machine in both, a gateway to each.
func shop() *Plan {
	return &Plan{
		Networks: []Network{
			{Name: "front", Bridge: "zb0", MAC: "02:00:00:00:00:01", Host: netip.MustParsePrefix("10.42.0.1/24"), Outbound: true, MTU: 1500, Taps: []Tap{
				{Machine: "web", Name: "zt0", MAC: "02:00:00:00:01:01", Address: netip.MustParseAddr("10.42.0.2")},
				{Machine: "app", Name: "zt1", MAC: "02:00:00:00:01:02", Address: netip.MustParseAddr("10.42.0.3")}}},
			{Name: "back", Bridge: "zb1", MAC: "02:00:00:00:00:02", Host: netip.MustParsePrefix("10.43.0.1/24"), MTU: 1500, Taps: []Tap{
				{Machine: "app", Name: "zt2", MAC: "02:00:00:00:01:03", Address: netip.MustParseAddr("10.43.0.2")}}},
		},
		Gateways: []Gateway{
			{Name: "http", Protocol: "tcp", Port: 8080, Bridge: "zb0", Target: netip.MustParseAddrPort("10.42.0.2:80")},
			{Name: "admin", Protocol: "tcp", Port: 9090, Bridge: "zb1", Target: netip.MustParseAddrPort("10.43.0.2:90"), Masquerade: true},
		},
	}
}

const licence = "# SPDX-License-Identifier: Apache-2.0\n" // first line of the golden files

func TestRulesGolden(t *testing.T) {
	for name, r := range map[string]Ruleset{
		"base.nft":      Rules("eth0", nil),
		"no-uplink.nft": Rules("", []*Plan{shop()}),
		"shop.nft":      Rules("eth0", []*Plan{shop()}),
	} {
		path := "testdata/" + name
		if *update {
			if err := os.WriteFile(path, []byte(licence+r.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if licence+r.String() != string(want) {
			t.Errorf("%s differs:\n%s", name, r)
		}
	}
}

func TestConflict(t *testing.T) {
	other := &Plan{Networks: []Network{{Name: "x", Bridge: "zb9", Host: netip.MustParsePrefix("10.42.0.129/25")}}}
	port := &Plan{Gateways: []Gateway{{Name: "g", Protocol: "tcp", Port: 9090}}}
	for _, c := range []struct {
		name   string
		uplink []netip.Prefix
		others []*Plan
		want   string
	}{
		{"none", []netip.Prefix{netip.MustParsePrefix("10.0.2.15/24")}, nil, ""},
		{"uplink", []netip.Prefix{netip.MustParsePrefix("10.43.0.7/16")}, nil, "overlaps the uplink's 10.43.0.0/16"},
		{"other", nil, []*Plan{other}, "overlaps 10.42.0.128/25 (zb9)"},
		{"port", nil, []*Plan{port}, "port 9090 is taken"},
	} {
		err := shop().Conflict(c.uplink, c.others)
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestRulesThatTheKernelCannotHave are refused, never left out.
func TestRulesThatTheKernelCannotHave(t *testing.T) {
	for want, table := range map[string]Table{
		`no family "arp"`: {Family: "arp"},
		`no hook "later"`: {Family: "inet", Chains: []Chain{{Name: "c", Hook: "later"}}},
	} {
		if err := queue(&nftables.Conn{}, table); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for _, bad := range []string{"", "x", "02:00:00:00:00:00:00:01"} {
		if got := mac(bad); string(got) != "\x00\x00\x00\x00\x00\x00" {
			t.Errorf("%q became %x, which a packet may have", bad, got)
		}
	}
}
