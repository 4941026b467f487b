// SPDX-License-Identifier: Apache-2.0

package kmod

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func index(t *testing.T) (*Index, *[]string) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"modules.dep":     "kernel/a.ko: kernel/b.ko kernel/c-d.ko\nkernel/b.ko: kernel/c-d.ko\nkernel/c-d.ko:\nkernel/intel.ko:\nkernel/z-x.ko.xz: kernel/b.ko\n",
		"modules.alias":   "alias pci:v00001AF4d*sv*sd*bc*sc*i* a\nalias cpu:type:x86,ven0002fam*mod*:feature:*00C2* b\n",
		"modules.softdep": "softdep b pre: intel missing\n",
		"modules.load":    "c-d\na\n",
		"modules.late":    "intel\n",
		"modules.wait":    "amd\n",
		"modules.builtin": "kernel/fs/ext4.ko\n",
	})
	x, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	x.insert = func(file string) error {
		got = append(got, filepath.Base(file))
		if filepath.Base(file) == "intel.ko" {
			return ErrNoDevice
		}
		return nil
	}
	return x, &got
}

func TestLoadOrder(t *testing.T) {
	x, got := index(t)
	if want := []string{"c_d", "a"}; !slices.Equal(x.Boot(), want) {
		t.Errorf("boot list %v, want %v", x.Boot(), want)
	}
	if err := x.Load("a"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"c-d.ko", "b.ko", "a.ko"}; !slices.Equal(*got, want) {
		t.Errorf("loaded %v, want %v", *got, want)
	}
	*got = nil
	if err := x.Load("a"); err != nil || len(*got) != 0 {
		t.Errorf("a second load: %v, %v", err, *got)
	}
	if err := x.Load("z_x"); err != nil || !slices.Contains(*got, "z-x.ko.xz") {
		t.Errorf("a compressed module: %v, %v", err, *got)
	}
	if err := x.Load("b"); err != nil {
		t.Errorf("a module whose soft dependency is for other hardware: %v", err)
	}
}

// What two modules need is inserted once: the kernel would check it again
// before it says that it is there.
func TestSharedNeedsAreInsertedOnce(t *testing.T) {
	x, got := index(t)
	for _, name := range []string{"z_x", "a", "b"} {
		if err := x.Load(name); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(*got)
	if all := *got; len(slices.Compact(slices.Clone(all))) != len(all) {
		t.Errorf("inserted %v", all)
	}
}

func TestInsists(t *testing.T) {
	for name, c := range map[string]struct {
		lockdown, enforce string
		want              bool
	}{
		"not locked down":                {"[none] integrity confidentiality\n", "N\n", false},
		"Secure Boot":                    {"none [integrity] confidentiality\n", "N\n", true},
		"told to on its command line":    {"[none] integrity confidentiality\n", "Y\n", true},
		"a kernel without lockdown":      {"", "N\n", true},
		"a kernel without the parameter": {"[none] integrity confidentiality\n", "", true},
	} {
		got := insists(func(file string) ([]byte, error) {
			text := map[string]string{lockdown: c.lockdown, enforce: c.enforce}[file]
			if text == "" {
				return nil, os.ErrNotExist
			}
			return []byte(text), nil
		})
		if got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestLoadAnswers(t *testing.T) {
	x, _ := index(t)
	if err := x.Load("ext4"); err != nil {
		t.Errorf("built-in: %v", err)
	}
	if err := x.Load("nothing"); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
	if err := x.Load("intel"); !errors.Is(err, ErrNoDevice) {
		t.Errorf("other hardware: %v", err)
	}
}

func TestLoadAll(t *testing.T) {
	x, got := index(t)
	if err := x.loadAll([]Wanted{{"nothing", true}, {"intel", true}, {"c-d", false}}); err != nil || !slices.Contains(*got, "c-d.ko") {
		t.Errorf("%v, %v", err, *got)
	}
	if err := x.loadAll([]Wanted{{"nothing", false}}); !errors.Is(err, ErrUnknown) {
		t.Errorf("%v", err)
	}
}

func TestMatch(t *testing.T) {
	x, _ := index(t)
	for modalias, want := range map[string][]string{
		"pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00":      {"a"},
		"cpu:type:x86,ven0002fam0017mod0001:feature:,0000,00C2,0101": {"b"},
		"pci:v00008086d00001041sv00001AF4sd00001100bc02sc00i00":      nil,
	} {
		if got := x.Match(modalias); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", modalias, got, want)
		}
	}
}

func TestModaliases(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"devices/pci0/dev1/modalias": "pci:1\n", "devices/pci0/dev2/modalias": "pci:1\n", "devices/pci0/dev3/modalias": "\n", "devices/x/modalias": "virtio:2",
		"devices/virtual/dmi/id/modalias": "dmi:3\n", "devices/system/cpu/modalias": "cpu:type:x86\n", "devices/dev4/uevent": "",
	})
	for link, to := range map[string]string{
		"bus/pci/devices/1": "pci0/dev1", "bus/pci/devices/2": "pci0/dev2", "bus/pci/devices/3": "pci0/dev3", "bus/pci/devices/4": "dev4",
		"bus/virtio/devices/x": "x", "bus/virtio/devices/gone": "y", "class/dmi/id": "virtual/dmi/id",
	} {
		at := filepath.Join(dir, link)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.Symlink(filepath.Join(dir, "devices", to), at)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Modaliases(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"pci:1", "virtio:2", "dmi:3", "cpu:type:x86"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
