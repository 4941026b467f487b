// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec/strict"
)

// voucherFile is a voucher for ten nodes; who signed it is the ledger's to judge.
func voucherFile(t *testing.T) string {
	t.Helper()
	s, _, err := sign.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	own, secret, err := sign.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	document, err := strict.Encode(ledger.Voucher{ID: "v", Uses: 10, Key: own.PublicKey()})
	if err != nil {
		t.Fatal(err)
	}
	env := &sign.Envelope{PayloadType: ledger.TypeVoucher, Payload: document, Signatures: []sign.Signature{}}
	if err := env.Add(s); err != nil {
		t.Fatal(err)
	}
	b, err := env.Encode()
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(t.TempDir(), "voucher.json")
	if err := os.WriteFile(p+voucherKeyExt, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNodeCommands(t *testing.T) {
	voucher, dir := voucherFile(t), t.TempDir()
	junk := filepath.Join(dir, "junk.json")
	if err := os.WriteFile(junk, []byte(`{"a":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	network := filepath.Join(dir, "network.json")
	b, err := json.Marshal(seed.Automatic())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(network, b, 0o600); err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile("../../boards/qemu-x86_64.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"junk.yaml": "name: junk\n", "mine.yaml": strings.Replace(string(ours), "name: qemu-x86_64", "name: mine", 1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "seed.json")
	base := []string{"node", "seed", "--ledger", "http://10.0.2.2:8470", "--voucher", voucher, "-o", out, "--replace"}
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"seed":                    {append(base, "--name", "n1", "--mirror", "http://10.0.2.2:8480"), exitOK, "network IPv4 dhcp, IPv6 auto"},
		"seed, static":            {append(base, "--name", "n1", "--address", "192.0.2.2/24", "--gateway", "192.0.2.1", "--dns", "192.0.2.53"), exitOK, "network IPv4 static, IPv6 auto"},
		"seed, JSON":              {append(base, "--name", "n1", "--json"), exitOK, `"bytes":`},
		"seed, bad name":          {append(base, "--name", "N_1"), exitUsage, "name"},
		"seed, far router":        {append(base, "--name", "n1", "--address", "10.0.0.1/24", "--gateway", "10.0.1.1"), exitUsage, "10.0.0.0/24"},
		"seed, bad address":       {append(base, "--name", "n1", "--address", "192.0.2.2"), exitUsage, "--address \"192.0.2.2\": want ADDRESS/LENGTH such as 10.0.0.1/24"},
		"seed, bad router":        {append(base, "--name", "n1", "--address", "192.0.2.2/24", "--gateway", "192.0.2.1/24"), exitUsage, "without a length"},
		"seed, bond on a VLAN":    {append(base, "--name", "n1", "--link", "eth0", "--link", "eth1", "--bond", "lacp", "--vlan", "7"), exitOK, "lacp bond, VLAN 7"},
		"seed, bad bond":          {append(base, "--name", "n1", "--bond", "rr"), exitUsage, "networks[0].bond"},
		"seed, bad VLAN":          {append(base, "--name", "n1", "--vlan", "5000"), exitUsage, "networks[0].vlan"},
		"seed, bad ledger":        {append(base, "--name", "n1", "--ledger", "notaurl"), exitUsage, "ledger[1]"},
		"seed, key is none":       {append(base, "--name", "n1", "--voucher-key", junk), exitRefused, "--voucher-key: " + junk},
		"seed, there is one":      {[]string{"node", "seed", "--name", "n1", "--ledger", "http://h", "--voucher", voucher, "-o", junk}, exitRefused, junk + " is there already; name another, or --replace it"},
		"seed, two of a family":   {append(base, "--name", "n1", "--address", "192.0.2.2/24", "--address", "192.0.2.3/24"), exitUsage, "one family"},
		"seed, networks of files": {append(base, "--name", "n1", "--network", network, "--network", network), exitOK, "; else IPv4 dhcp"},
		"seed, file and flags":    {append(base, "--name", "n1", "--network", network, "--vlan", "7"), exitUsage, "whole configuration"},
		"seed, network is junk":   {append(base, "--name", "n1", "--network", junk), exitRefused, `a whole one is {"links":[]`},
		"seed, no network file":   {append(base, "--name", "n1", "--network", filepath.Join(dir, "none")), exitNotFound, "none"},
		"seed, no voucher file":   {[]string{"node", "seed", "--name", "n", "--ledger", "http://h", "--voucher", filepath.Join(dir, "none")}, exitNotFound, "voucher"},
		"seed, no envelope":       {[]string{"node", "seed", "--name", "n", "--ledger", "http://h", "--voucher", junk}, exitRefused, "junk.json"},
		"build, no such board":    {[]string{"node", "build", "--board", "pdp-11", "--root", voucher, "-o", dir}, exitNotFound, "qemu-x86_64"},
		"build, board is none":    {[]string{"node", "build", "--board", filepath.Join(dir, "none.yaml"), "--root", voucher, "-o", dir}, exitNotFound, "--board: board: stat"},
		"build, board is junk":    {[]string{"node", "build", "--board", filepath.Join(dir, "junk.yaml"), "--root", voucher, "-o", dir}, exitRefused, "junk.yaml: about: missing"},
		"build, board of a file":  {[]string{"node", "build", "--board", filepath.Join(dir, "mine.yaml"), "--root", filepath.Join(dir, "none"), "-o", dir}, exitNotFound, "a ledger's root"},
		"build, no root":          {[]string{"node", "build", "--root", filepath.Join(dir, "none"), "-o", dir}, exitNotFound, "none: no such file or directory; want the envelope of a ledger's root"},
		"build, root is junk":     {[]string{"node", "build", "--root", junk, "-o", dir}, exitRefused, "junk.json"},
		"build, seed is junk":     {[]string{"node", "build", "--root", voucher, "--seed", junk, "-o", dir}, exitRefused, "seed"},
		"run, no image":           {[]string{"node", "run", filepath.Join(dir, "none.img")}, exitNotFound, "none.img"},
		"run, bad forward":        {[]string{"node", "run", junk, "--forward", "80"}, exitUsage, "HOSTPORT:PORT"},
		"capacity, no root":       {[]string{"node", "capacity", "--ledger", dir}, exitUsage, "--root"},
		"capacity, root is wrong": {[]string{"node", "capacity", "--ledger", dir, "--root", voucher}, exitRefused, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("ZOS_ROOT", "")
			var stdout, stderr bytes.Buffer
			code := run(context.Background(), c.args, &stdout, &stderr)
			if all := stdout.String() + stderr.String(); code != c.code || !strings.Contains(all, c.says) {
				t.Errorf("exit %d, want %d and %q:\n%s", code, c.code, c.says, all)
			}
			if strings.HasPrefix(name, "seed") && code == exitOK {
				b, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := seed.Decode(b); err != nil {
					t.Errorf("what was written is no seed: %v", err)
				}
			}
		})
	}
}

func TestParseForward(t *testing.T) {
	got, err := parseForward([]string{"8080:80", "8443:443"})
	if err != nil || len(got) != 2 || got[8080] != 80 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"80", "a:80", "80:", "0:80", "80:65536", "1:2:3", "-1:2"} {
		if _, err := parseForward([]string{bad}); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}
