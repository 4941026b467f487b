// SPDX-License-Identifier: Apache-2.0

package boards

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEveryBoardLoads(t *testing.T) {
	names, err := Names()
	if err != nil || len(names) == 0 {
		t.Fatalf("boards: %v, %v", names, err)
	}
	for _, n := range names {
		b, err := Load(n)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if strings.ContainsAny(b.Cmdline, "\n\t") {
			t.Errorf("%s: cmdline is not one line: %q", n, b.Cmdline)
		}
	}
}

// TestWhatBoardsAreFor: boards promise the drivers of the machines that they are
// made for; that an image has what is promised is the image's test.
func TestWhatBoardsAreFor(t *testing.T) {
	for name, want := range map[string][]string{
		"qemu-x86_64": {"virtio_blk", "virtio_net"},
		"qemu-arm64":  {"virtio_blk", "virtio_net"},
		"vm-x86_64":   {"virtio_blk", "virtio_net", "hv_storvsc", "hv_netvsc", "vmxnet3", "vmw_pvscsi", "xen_blkfront", "xen_netfront"},
		"pc-x86_64":   {"nvme", "ahci", "megaraid_sas", "mpt3sas", "igb", "ixgbe", "i40e", "bnxt_en", "tg3", "mlx5_core", "usb_storage"},
	} {
		b, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range want {
			if !slices.Contains(b.Drivers, d) {
				t.Errorf("%s does not promise %s: %v", name, d, b.Drivers)
			}
		}
	}
}

func TestUnknownBoardNamesTheOthers(t *testing.T) {
	for _, n := range []string{"pdp-11", "../boards/qemu-x86_64", ""} {
		_, err := Load(n)
		if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "qemu-x86_64") {
			t.Errorf("%q: %v", n, err)
		}
	}
}

func TestOpen(t *testing.T) {
	ours, err := files.ReadFile("qemu-x86_64.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	other := strings.Replace(string(ours), "name: qemu-x86_64\n", "name: my-box\n", 1)
	for name, c := range map[string]struct{ text, says string }{
		"my-box.yaml":      {other, ""},
		"qemu-x86_64.yaml": {string(ours), ""},
		"vm-x86_64.yaml":   {strings.Replace(other, "my-box", "vm-x86_64", 1), "the name of another board"},
		"your-box.yaml":    {other, `its name field says "my-box"`},
		"long.yaml":        {strings.Replace(other, "my-box", "long", 1) + strings.Repeat("#", maxFile), "at most 65536 bytes"},
		"junk.yaml":        {"a: 1\n", "not found"},
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		b, err := Open(file)
		switch {
		case c.says == "" && (err != nil || b.Name+".yaml" != name || NameOf(file) != b.Name):
			t.Errorf("%s: %v, %+v", name, err, b)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	if _, err := Open(filepath.Join(dir, "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "folder.yaml")); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("a folder: %v", err)
	}
	if b, err := Open("vm-x86_64"); err != nil || b.Name != "vm-x86_64" || NameOf("vm-x86_64") != b.Name {
		t.Errorf("one of ours: %v, %+v", err, b)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := "name: a\nabout: b\narch: amd64\nkernel: k\nguestKernel: k\nmodules: [kvm]\ninitramfs: lz4\ncmdline: quiet\nespMiB: 100\n"
	if _, err := Decode([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, says string }{
		"unknown field": {good + "color: red\n", "color"},
		"no kernel":     {strings.Replace(good, "kernel: k\n", "", 1), "kernel"},
		"no modules":    {strings.Replace(good, "modules: [kvm]\n", "", 1), "modules"},
		"no initramfs":  {strings.Replace(good, "initramfs: lz4\n", "", 1), "initramfs"},
		"bzip2":         {strings.Replace(good, "lz4", "bzip2", 1), "want lz4 or zstd"},
		"tiny ESP":      {strings.Replace(good, "100", "1", 1), "espMiB"},
		"two documents": {good + "---\n" + good, "second document"},
		"other arch":    {strings.Replace(good, "amd64", "riscv64", 1), "want amd64 or arm64"},
		"two lines":     {strings.Replace(good, "quiet", `"quiet\nrdinit=/x"`, 1), "one line"},
		"bad name":      {strings.Replace(good, "name: a", "name: A/b", 1), "name"},
	} {
		if _, err := Decode([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
