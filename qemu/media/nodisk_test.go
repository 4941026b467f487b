// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/qemu/ledgerproc"
)

// origin of ledgers that the rig runs.
const origin = "zos.example/rig"

// TestNoDisk: a machine without any disk boots by HTTP, enrols with the seed
// from its SMBIOS, and offers what it has on a real ledger: a full node, from
// memory alone.
func TestNoDisk(t *testing.T) {
	if !all() {
		t.Skip("SKIP here, part of make test-boot")
	}
	l := ledgerproc.Start(t, origin, 1)
	text := l.Seed("ram")
	r := request(t, "vm-x86_64", l.File("image"))
	r.Seed, r.Root, r.Hypervisor = nil, l.RootEnvelope(), image.FindHypervisor
	if _, err := image.Build(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	http, _ := serve(t, filepath.Join(r.Out, image.NetbootDir))
	m := start(t, qemu.Options{
		SMBIOS: []string{seed.SMBIOSPrefix + base64.StdEncoding.EncodeToString(text)},
		UEFI: &qemu.UEFI{Net: &qemu.NetBoot{}, Vars: func() (qemu.Vars, error) {
			return qemu.BootURL(fmt.Sprintf("http://%s:%d/%s", ledgerproc.Gateway, http, image.NetbootUKI)), nil
		}},
	})
	says(t, m, `msg="following the ledger"`)
	c := offers(t, l, "ram")
	t.Logf("a node without a disk boots by HTTP, enrols, and offers %d MiB", c.MemoryMiB)
	if c.Boot.Key != "memory" {
		t.Errorf("its key is %q on the ledger, want memory", c.Boot.Key)
	}
}

// TestSeedOnStick: an optical medium that everybody gets, and beside it the stick
// that zos node seeds makes for one node.
func TestSeedOnStick(t *testing.T) {
	if !all() {
		t.Skip("SKIP here, part of make test-boot")
	}
	l := ledgerproc.Start(t, origin, 1)
	l.Seed("stick")
	r := request(t, "pc-x86_64", l.File("image"))
	r.Seed, r.Root, r.Hypervisor = nil, l.RootEnvelope(), image.FindHypervisor
	if _, err := image.Build(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	iso := filepath.Join(r.Out, image.MediumISO)
	l.Zos("node", "seeds", iso, l.File("stick.seed"), "--form", "usb", "-o", l.File("sticks"))
	m := start(t, qemu.Options{Disk: iso, UEFI: &qemu.UEFI{Bus: "cdrom", Extra: []qemu.ExtraDisk{{Bus: "usb", File: filepath.Join(l.File("sticks"), "stick.fat")}}}})
	if from := says(t, m, `msg=seed .*from="?([^" ]+)|ZOS STOPPED`); !strings.HasPrefix(from[1], "/dev/sda") {
		t.Errorf("the seed came from %q, want the stick /dev/sda", from[1])
	}
	c := offers(t, l, "stick")
	t.Logf("a node from an ISO takes its seed from a stick, enrols, and offers %d MiB", c.MemoryMiB)
	if c.Boot.Key != "memory" {
		t.Errorf("its key is %q on the ledger, want memory", c.Boot.Key)
	}
}

// offers waits until the one node of a ledger has said what it has.
func offers(t *testing.T, l *ledgerproc.Ledger, name string) *ledger.Capacity {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Second) {
		var nodes []struct {
			Name     string
			Capacity *ledger.Capacity
		}
		out := l.Zos("node", "capacity", "--ledger", l.URL, "--root", l.Root, "--json")
		if err := json.Unmarshal(out, &nodes); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if len(nodes) == 1 && nodes[0].Name == name && nodes[0].Capacity != nil {
			return nodes[0].Capacity
		}
		if time.Now().After(deadline) {
			t.Fatalf("the ledger knows %s", out)
		}
	}
}
