// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"flag"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/network"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/zimage"
)

var update = flag.Bool("update", false, "write the golden files anew")

type paths string

func (p paths) BlobPath(d string) string {
	return string(p) + "/blobs/" + strings.TrimPrefix(d, "sha256:")
}
func (p paths) ImagePath(d string) string {
	return string(p) + "/images/" + strings.TrimPrefix(d, "sha256:") + ".img"
}

func hex64(c string) string { return strings.Repeat(c, 64) }

func shop(t *testing.T) (*spec.Deployment, map[string]zimage.Manifest) {
	t.Helper()
	b, err := os.ReadFile("testdata/shop.json")
	if err != nil {
		t.Fatal(err)
	}
	d := &spec.Deployment{}
	if err := json.Unmarshal(b, d); err != nil {
		t.Fatal(err)
	}
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	return d, map[string]zimage.Manifest{
		"sha256:" + hex64("1"): {DataSize: 40960, Verity: zimage.Verity{Root: hex64("a"), HashStart: 10}},
		"sha256:" + hex64("2"): {DataSize: 81920, Verity: zimage.Verity{Root: hex64("b"), HashStart: 20}},
	}
}

func facts(slot int) Facts {
	return Facts{Deployment: int64(57 + slot), Digest: "sha256:" + hex64("d"), Slot: slot, RunDir: "/run/zos", Content: paths("/run/zos/store")}
}

func TestGolden(t *testing.T) {
	d, m := shop(t)
	p, err := Make(d, m, facts(2))
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{"shop.plan.json": p, "shop.normal.json": p.Normal()} {
		got, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		path := "testdata/" + name
		if *update {
			if err := os.WriteFile(path, append(got, '\n'), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got)+"\n" != string(want) {
			t.Errorf("%s differs:\n%s", name, got)
		}
	}
	for _, mc := range p.Machines {
		if err := mc.VM.Validate(); err != nil {
			t.Errorf("%s: %v", mc.Name, err)
		}
	}
	if strings.Contains(network.Rules("eth0", []*network.Plan{&p.Network}).String(), "invalid") {
		t.Error("rules have an invalid address")
	}
}

func TestSameDigestOnEveryNode(t *testing.T) {
	d, m := shop(t)
	digest := func(f Facts) string {
		p, err := Make(d, m, f)
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	other := facts(7)
	other.RunDir, other.Content = "/var/run/other", paths("/elsewhere")
	if a, b := digest(facts(0)), digest(other); a != b {
		t.Errorf("%s and %s", a, b)
	}
	was := digest(facts(0))
	d.Machines[0].VCPUs++
	if digest(facts(0)) == was {
		t.Error("another spec has the same plan")
	}
}

// TestNothingLocalIsLeft holds Normal against names that only one node has.
func TestNothingLocalIsLeft(t *testing.T) {
	d, m := shop(t)
	p, err := Make(d, m, facts(3))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(p.Normal())
	if err != nil {
		t.Fatal(err)
	}
	for _, local := range []string{"/run/zos", "zb", "zt", "d60"} {
		if strings.Contains(string(b), `"`+local) {
			t.Errorf("%q is in the normal form: %s", local, b)
		}
	}
}

func TestRefusals(t *testing.T) {
	d, m := shop(t)
	delete(m, "sha256:"+hex64("2"))
	if _, err := Make(d, m, facts(0)); err == nil || !strings.Contains(err.Error(), "no manifest") {
		t.Errorf("missing manifest: %v", err)
	}
	d, m = shop(t)
	bad := m["sha256:"+hex64("1")]
	bad.Verity.Root = hex64("c")
	m["sha256:"+hex64("1")] = bad
	if _, err := Make(d, m, facts(0)); err == nil || !strings.Contains(err.Error(), "verity root") {
		t.Errorf("other root: %v", err)
	}
}

// TestPlanAsksAgain for what spec refuses already: a plan is made of nothing that
// it would have to guess.
func TestPlanAsksAgain(t *testing.T) {
	for want, edit := range map[string]func(*spec.Deployment){
		"no volume nowhere": func(d *spec.Deployment) {
			d.Machines[0].Mounts = append(d.Machines[0].Mounts, spec.Mount{Type: "volume", Volume: "nowhere", Path: "/x", Mode: "0755"})
		},
		"is taken": func(d *spec.Deployment) {
			d.Machines[0].Interfaces = append(d.Machines[0].Interfaces, d.Machines[0].Interfaces[0])
		},
		"user": func(d *spec.Deployment) { d.Machines[0].Process.User = "root" },
		"mode": func(d *spec.Deployment) {
			d.Machines[0].Files = []spec.File{{Path: "/x", Mode: "0x9", Encoding: "utf-8"}}
		},
		"ParsePrefix": func(d *spec.Deployment) { d.Networks[0].Subnet = "10.0.0.0" },
		"circle": func(d *spec.Deployment) {
			d.Machines[0].DependsOn, d.Machines[1].DependsOn = []string{d.Machines[1].Name}, []string{d.Machines[0].Name}
		},
	} {
		d, m := shop(t)
		edit(d)
		if _, err := Make(d, m, facts(0)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestDefaultNetwork: a machine's way out is the network that leads there.
func TestDefaultNetwork(t *testing.T) {
	d := &spec.Deployment{Networks: []spec.Network{{Name: "in", Isolation: "isolated"}, {Name: "out", Isolation: "outbound"}},
		Machines: []spec.Machine{{Name: "a", Interfaces: []spec.Interface{{Network: "in"}, {Network: "out"}}}, {Name: "b", Interfaces: []spec.Interface{{Network: "in"}}}}}
	for machine, want := range map[string]string{"a": "out", "b": "", "none": ""} {
		if got := defaultNetwork(d, machine); got != want {
			t.Errorf("%s: %q, want %q", machine, got, want)
		}
	}
	d.Gateways = []spec.Gateway{{Machine: "b", Network: "in"}}
	if got := defaultNetwork(d, "b"); got != "in" {
		t.Errorf("behind a gateway: %q", got)
	}
}

func TestOrder(t *testing.T) {
	d, _ := shop(t)
	if got := order(d); !slices.Equal(got, []string{"app", "web"}) {
		t.Errorf("order %v", got)
	}
}

func TestMAC(t *testing.T) {
	a, b := MAC("x", "tap", "web", "front"), MAC("x", "tap", "web", "back")
	hw, err := net.ParseMAC(a)
	if err != nil || hw[0]&1 != 0 || hw[0]&2 == 0 || a == b || a != MAC("x", "tap", "web", "front") {
		t.Errorf("%s %s %v", a, b, err)
	}
}
