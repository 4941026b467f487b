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

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/image/secureboot"
)

// smallImage is a disk image with a UKI of nothing.
func smallImage(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "node.img")
	b := image.Boot{Arch: "amd64", Version: "1", Loader: []byte("loader"), UKI: []byte("uki")}
	if err := (image.Disk{Boot: b, ESPMiB: 64}).Write(name); err != nil {
		t.Fatal(err)
	}
	return name
}

// smallISO is the same as an optical medium.
func smallISO(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "node.iso")
	if err := (image.ISO{Boot: image.Boot{Arch: "amd64", Version: "1", Loader: []byte("loader"), UKI: []byte("uki")}}).Write(name); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestMediaCommands(t *testing.T) {
	dir := t.TempDir()
	img, voucher, s := smallImage(t), voucherFile(t), filepath.Join(dir, "seed.json")
	p := func(n string) string { return filepath.Join(dir, n) }
	iso := smallISO(t)
	disk := func(name string, size int64, content string) string {
		if err := os.WriteFile(p(name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(p(name), size); err != nil {
			t.Fatal(err)
		}
		return p(name)
	}
	empty, full, small := disk("empty", 200<<20, ""), disk("full", 200<<20, "precious"), disk("small", 10<<20, "")
	disk("cert", 58, "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"node", "seed", "--name", "n1", "--ledger", "http://192.0.2.1:1", "--voucher", voucher, "-o", s}, exitOK, "n1"},
		{[]string{"node", "flash", img, empty}, exitOK, "nothing was written"},
		{[]string{"node", "flash", img, small}, exitRefused, "the image needs"},
		{[]string{"node", "flash", img, full, "--write"}, exitRefused, "not empty (data)"},
		{[]string{"node", "flash", img, full, "--write", "--serial", "X"}, exitRefused, "does not tell"},
		{[]string{"node", "flash", s, empty}, exitRefused, "not a node image"},
		{[]string{"node", "flash", img, p("none")}, exitNotFound, "none"},
		{[]string{"node", "flash", img, "/dev/null"}, exitRefused, "name the whole disk, such as /dev/sdb"},
		{[]string{"node", "flash", img, dir, "--write"}, exitRefused, "name the whole disk, such as /dev/sdb"},
		{[]string{"node", "flash", img}, exitUsage, "want the image and the disk; see zos node flash --help\n"},
		{[]string{"node", "flash", img, empty}, exitOK, "seed    none: the node asks SMBIOS"},
		{[]string{"node", "flash", img, empty, "--seed", s}, exitOK, "seed    " + s + ": node n1, ledger http://192.0.2.1:1"},
		{[]string{"node", "flash", iso, empty}, exitRefused, ": of kind iso, "},
		{[]string{"node", "flash", img, empty, "--seed", img}, exitRefused, "seed"},
		{[]string{"node", "flash", img, empty, "--seed", s, "--write"}, exitOK, "read back the same"},
		{[]string{"node", "flash", img, empty, "--write"}, exitRefused, "GPT"},
		{[]string{"node", "seeds", img, s, "--names", "edge-098..edge-102", "-o", p("fleet")}, exitOK, "5 made"},
		{[]string{"node", "seeds", img, s, "--names", "edge-102..edge-104", "-o", p("fleet")}, exitRefused, p("fleet/edge-102.img") + " is there already; name another, or --replace it"},
		{[]string{"node", "seeds", img, s, "--names", "edge-102..edge-102", "-o", p("fleet"), "--replace"}, exitOK, "1 made"},
		{[]string{"node", "seeds", img, s, "--names", "edge-01..edge-10", "--form", "smbios", "-o", p("ten")}, exitOK, "10 made"},
		{[]string{"node", "seeds", img, s, "--names", "edge-01..edge-11", "--form", "smbios", "-o", p("eleven")}, exitRefused, "11 seeds have voucher v, which is good for 10 nodes: make one for all (zos ledger voucher --uses 11)"},
		{[]string{"node", "seeds", iso, s, "-o", p("isos")}, exitOK, "note: " + iso + " is an ISO"},
		{[]string{"node", "seeds", s, s, "-o", p("junk")}, exitRefused, "not a node image"},
		{[]string{"node", "seeds", img, s, "--form", "usb", "-o", p("usb")}, exitOK, "1 made"},
		{[]string{"node", "seeds", img, s, "--form", "smbios", "-o", p("smbios")}, exitOK, "1 made"},
		{[]string{"node", "seeds", img, s, s, "-o", p("twice")}, exitRefused, "two seeds"},
		{[]string{"node", "seeds", img, s, "--form", "fax", "-o", p("fax")}, exitUsage, "smbios"},
		{[]string{"node", "seeds", img, s, "--names", "a..b", "-o", p("bad")}, exitUsage, "edge-001"},
		{[]string{"node", "seed", "--name", "n", "--ledger", "http://198.51.100.1:1", "--voucher", voucher, "--address", "192.0.2.20/24", "--ipv6", "off", "-o", p("off")}, exitRefused, "ledger http://198.51.100.1:1 is not on the link of any static address, and there is no router: add --gateway"},
		{[]string{"node", "seed", "--name", "n", "--ledger", "http://198.51.100.1:1", "--voucher", voucher, "--address", "192.0.2.20/24", "--gateway", "192.0.2.1", "-o", p("on"), "--replace"}, exitOK, "node n"},
		{[]string{"node", "seed", "--name", "n", "--ledger", "http://192.0.2.1:1", "--voucher", voucher, "--address", "192.0.2.20/24", "-o", p("on"), "--replace"}, exitOK, "node n"},
		{[]string{"node", "seed", "--name", "n", "--ledger", "http://[2001:db8::1]:1", "--voucher", voucher, "--address", "192.0.2.20/24", "-o", p("on"), "--replace"}, exitOK, "node n"},
		{[]string{"node", "seed", "--name", "n", "--ledger", "http://x:1", "--voucher", voucher, "--recovery", p("cert"), "-o", p("on"), "--replace"}, exitRefused, p("cert") + ": has 3 lines, want the one line of a public key"},
		{[]string{"node", "keys", p("keys"), "--name", "example"}, exitOK, "PK, KEK and db of example"},
		{[]string{"node", "keys", p("keys")}, exitRefused, p("keys") + " has KEK.auth already: file already exists; keys are not overwritten: name another folder\n"},
		{[]string{"node", "keys", p("nobody"), "--name", " "}, exitUsage, "--name: is empty"},
		{[]string{"node", "keys", p("keys2"), "--also", s}, exitRefused, "--also: " + s + " is no X.509 certificate, as PEM (-----BEGIN CERTIFICATE-----) or as DER"},
		{[]string{"node", "keys", p("keys2"), "--also", p("keys/db.key")}, exitRefused, "holds a PRIVATE KEY, want an X.509 certificate"},
		{[]string{"node", "keys", p("keys2"), "--also", p("keys/db.crt")}, exitOK, "1 further certificates"},
		{[]string{"node", "build", "--keys", p("none"), "--root", voucher, "-o", dir}, exitNotFound, "zos node keys"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(context.Background(), c.args, &stdout, &stderr)
		if both := stdout.String() + stderr.String(); code != c.code || !strings.Contains(both, c.says) {
			t.Errorf("%v: exit %d, want %d and %q:\n%s", c.args, code, c.code, c.says, both)
		}
	}
	if b, err := os.ReadFile(full); err != nil || string(b[:8]) != "precious" {
		t.Errorf("a refused disk was written: %v", err)
	}
	for name, node := range map[string]string{empty: "n1", p("fleet/edge-098.img"): "edge-098", p("fleet/edge-102.img"): "edge-102"} {
		m, err := image.Open(name)
		if err != nil || !strings.Contains(string(m.Seed), `"name":"`+node+`"`) {
			t.Errorf("%s: %v: %.80s", name, err, m.Seed)
		}
	}
	for _, never := range []string{"eleven", "nobody", "fleet/edge-103.img"} {
		if _, err := os.Stat(p(never)); err == nil {
			t.Errorf("%s: some of what was refused was made", never)
		}
	}
	if m, err := image.Open(p("isos/n1.iso")); err != nil || m.Kind != image.KindISO || len(m.Seed) == 0 {
		t.Errorf("a seeded ISO: %v", err)
	}
	if b, err := os.ReadFile(p("smbios/n1.smbios")); err != nil || !strings.HasPrefix(string(b), "zos.seed=") {
		t.Errorf("%v: %.20s", err, b)
	}
	if _, err := secureboot.Open(p("keys")); err != nil {
		t.Error(err)
	}
}

// untilDisk is a context that a signal ends once a disk looks as it is told.
type untilDisk struct {
	context.Context
	file string
	at   int64
	want string
}

func (u untilDisk) Err() error {
	f, err := os.Open(u.file)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, len(u.want))
	if _, err := f.ReadAt(b, u.at); err != nil {
		return err
	}
	if string(b) == u.want {
		return context.Canceled
	}
	return u.Context.Err()
}

// TestFlashInterrupted: who stops the writing of a disk hears what it is now.
func TestFlashInterrupted(t *testing.T) {
	img := smallImage(t)
	for name, c := range map[string]struct {
		at         int64
		want, says string
		boots      bool
	}{
		"writing":      {1<<20 + 510, "\x55\xaa", "the disk is half-written, what was on it is lost, and it does not boot: flash it again", false},
		"reading back": {512, "EFI PART", "the disk is written, but was not read back to its end: flash it again to be sure of it", true},
	} {
		for _, mode := range []string{"text", "--json"} {
			t.Run(name+", "+mode, func(t *testing.T) {
				disk := file(t, "disk", nil)
				if err := os.Truncate(disk, 200<<20); err != nil {
					t.Fatal(err)
				}
				args := []string{"node", "flash", img, disk, "--write"}
				if mode == "--json" {
					args = append(args, mode)
				}
				var stdout, stderr bytes.Buffer
				code := run(untilDisk{t.Context(), disk, c.at, c.want}, args, &stdout, &stderr)
				said := stderr.String()
				if code != exitInterrupted || strings.Count(said, "stopped by a signal, before the end; "+c.says) != 1 || strings.Contains(stdout.String(), "read back the same") {
					t.Errorf("exit %d:\n%s%s", code, stdout.String(), said)
				}
				if mode == "--json" {
					var e struct {
						Error string `json:"error"`
						Exit  int    `json:"exit"`
					}
					if err := json.Unmarshal(stderr.Bytes(), &e); err != nil || e.Exit != exitInterrupted || !strings.Contains(e.Error, disk) {
						t.Errorf("%v: %+v", err, e)
					}
				}
				if _, err := image.Open(disk); (err == nil) != c.boots {
					t.Errorf("it was stopped elsewhere: %v", err)
				}
			})
		}
	}
}
