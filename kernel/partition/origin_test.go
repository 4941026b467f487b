// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Nodes of device paths, as firmware writes them.
var (
	root     = []byte{2, 1, 12, 0, 0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0}
	pci      = []byte{1, 1, 6, 0, 0, 4}
	onUSB    = []byte{3, 5, 6, 0, 0, 0}
	anyUSB   = []byte{3, 15, 11, 0, 0xff, 0xff, 0xff, 0xff, 8, 0xff, 0xff}
	nvme     = []byte{3, 23, 16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	hard     = append([]byte{4, 1, 42, 0}, make([]byte, 38)...)
	loader   = []byte{4, 4, 8, 0, 'b', 0, 0, 0}
	firmware = append([]byte{4, 7, 20, 0}, make([]byte, 16)...)
	end      = []byte{0x7f, 0xff, 4, 0}
)

// entry is a boot entry with a path.
func entry(nodes ...[]byte) []byte {
	var path []byte
	for _, n := range nodes {
		path = append(path, n...)
	}
	b := binary.LittleEndian.AppendUint16([]byte{1, 0, 0, 0}, uint16(len(path)))
	b = append(b, 'U', 0, 1, 0, 0, 1, 0, 0) // the last character but one looks like an end
	return append(append(b, path...), "optional data"...)
}

func TestOrigin(t *testing.T) {
	for name, c := range map[string]struct {
		entry []byte
		want  Origin
	}{
		"a stick":                      {entry(root, pci, onUSB, end), OnUSB},
		"a stick behind a hub":         {entry(root, pci, onUSB, onUSB, hard, loader, end), OnUSB},
		"whatever stick":               {entry(anyUSB, end), OnUSB},
		"NVMe":                         {entry(root, pci, pci, nvme, end), Inside},
		"NVMe, with its partition":     {entry(root, pci, nvme, hard, loader, end), Inside},
		"virtio":                       {entry(root, pci, end), Inside},
		"a partition on whatever disk": {entry(hard, loader, end), Unknown},
		"the firmware's own shell":     {entry(firmware, end), Unknown},
		"an empty path":                {entry(end), Unknown},
		"no end":                       {entry(root, pci), Unknown},
		"a node without a length":      {entry(root, []byte{1, 1, 0, 0}, end), Unknown},
		"a node beyond the path":       {entry(root, []byte{1, 1, 200, 0}, end), Unknown},
	} {
		if got := origin(c.entry); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	whole := entry(root, pci, onUSB, end)
	for n := range len(whole) - len("optional data") {
		if got := origin(whole[:n]); got != Unknown {
			t.Errorf("cut after %d bytes: %d", n, got)
		}
	}
}

func FuzzOrigin(f *testing.F) {
	f.Add(entry(root, pci, onUSB, end))
	f.Add(entry(root, pci, nvme, hard, loader, end))
	f.Add(entry(hard, loader, end))
	f.Fuzz(func(t *testing.T, b []byte) {
		if o := origin(b); o != Unknown && len(b) < descriptionAt+2+2*nodeHeader {
			t.Errorf("%x tells %d", b, o)
		}
	})
}

// machine is a made-up /sys, /dev and efivars.
type machine struct {
	t   *testing.T
	dir string
}

func (m machine) write(name string, b []byte) {
	m.t.Helper()
	p := filepath.Join(m.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, b, 0o644)); err != nil {
		m.t.Fatal(err)
	}
}

// disk has one partition of ours; every byte of its GUID is id.
func (m machine) disk(at, name string, id byte) {
	m.t.Helper()
	table := make([]byte, 4*512)
	copy(table[512:], "EFI PART")
	binary.LittleEndian.PutUint64(table[512+entriesAt:], 2)
	binary.LittleEndian.PutUint32(table[512+entrySizeAt:], 128)
	for i := range 16 {
		table[2*512+entryGUID+i] = id
	}
	m.write("dev/"+name, table)
	m.write(filepath.Join("devices", at, name, "queue/logical_block_size"), []byte("512\n"))
	m.write(filepath.Join("devices", at, name, name+"1/uevent"), []byte("PARTN=1\nPARTNAME="+BootLabel+"\n"))
	if err := errors.Join(os.MkdirAll(filepath.Join(m.dir, "sys"), 0o755),
		os.Symlink(filepath.Join("../devices", at, name, name+"1"), filepath.Join(m.dir, "sys", name+"1"))); err != nil {
		m.t.Fatal(err)
	}
}

// TestOwn: of two look-alikes none is chosen, and one alone is not the node's
// own when the firmware says that it started from another kind of disk.
func TestOwn(t *testing.T) {
	stick, inside := entry(root, pci, onUSB, end), entry(root, pci, nvme, end)
	for name, c := range map[string]struct {
		disks string // u: a stick, n: NVMe, o: a stick with another image
		entry []byte // nil: the firmware says nothing
		want  string // "": it has not shown up
	}{
		"a stick, started from it":        {"u", stick, "/dev/sda1"},
		"NVMe, started from it":           {"n", inside, "/dev/nvme0n1"},
		"NVMe and another stick":          {"no", inside, "/dev/nvme0n1"},
		"NVMe, started from a stick":      {"n", stick, ""},
		"a stick, started from NVMe":      {"u", inside, ""},
		"another stick, started from it":  {"o", stick, ""},
		"NVMe, the firmware says nothing": {"n", nil, "/dev/nvme0n1"},
		"both, the firmware says nothing": {"un", nil, "twins"},
		"both, started from the stick":    {"un", stick, "twins"},
		"both, started from NVMe":         {"un", inside, "twins"},
	} {
		m := machine{t, t.TempDir()}
		for _, d := range c.disks {
			switch d {
			case 'u':
				m.disk("pci0000:00/0000:00:04.0/usb1/1-1/1-1:1.0/host0/block", "sda", 0xab)
			case 'o':
				m.disk("pci0000:00/0000:00:04.0/usb1/1-2/1-2:1.0/host1/block", "sdb", 0xcd)
			case 'n':
				m.disk("pci0000:00/0000:00:05.0/nvme/nvme0", "nvme0n", 0xab)
			}
		}
		var guid []byte
		for _, c := range "abababab-abab-abab-abab-abababababab" {
			guid = append(guid, byte(c), 0)
		}
		m.write("efivars/"+loaderPartition, append([]byte{6, 0, 0, 0}, guid...))
		if c.entry != nil {
			m.write("efivars/BootCurrent"+globalGUID, []byte{6, 0, 0, 0, 0x1c, 0})
			m.write("efivars/Boot001C"+globalGUID, append([]byte{7, 0, 0, 0}, c.entry...))
		}
		got, _, err := Own(filepath.Join(m.dir, "efivars"), filepath.Join(m.dir, "sys"), filepath.Join(m.dir, "dev"))
		switch {
		case errors.Is(err, ErrTwins) && strings.Contains(err.Error(), "nvme0n1 and sda1"):
			got = "twins"
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case got != "":
			got = strings.TrimPrefix(got, m.dir)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
