// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/image"
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
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Second) {
		var nodes []struct {
			Name     string
			Capacity *struct{ MemoryMiB int64 }
		}
		out := l.Zos("node", "capacity", "--ledger", l.URL, "--root", l.Root, "--json")
		if err := json.Unmarshal(out, &nodes); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if len(nodes) == 1 && nodes[0].Name == "ram" && nodes[0].Capacity != nil {
			t.Logf("a node without a disk boots by HTTP, enrols, and offers %d MiB", nodes[0].Capacity.MemoryMiB)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the ledger knows %s", out)
		}
	}
}
