// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zos-node/zos/kernel/partition"
)

// machine has disks as the kernel shows them: each with one FAT partition of
// the node's name in a GPT.
type machine struct {
	t   *testing.T
	dir string
	m   medium
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"sys", "dev", "efivars"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return &machine{t, dir, medium{efivars: dir + "/efivars", sys: dir + "/sys", dev: dir + "/dev", log: slog.New(slog.DiscardHandler),
		mount: func(device string, read func(string) error) error {
			return read(filepath.Join(dir, "mnt", filepath.Base(device)))
		}}}
}

// disk adds one, with the seed of a node of that name, "" for none. id makes its
// partition's GUID.
func (h *machine) disk(name string, id byte, node string) {
	h.t.Helper()
	part := name + "1"
	table := make([]byte, 4*sectorSize)
	copy(table[sectorSize:], "EFI PART")
	binary.LittleEndian.PutUint64(table[sectorSize+72:], 2)
	binary.LittleEndian.PutUint32(table[sectorSize+84:], 128)
	for i := range 16 {
		table[2*sectorSize+16+i] = id
	}
	fat := make([]byte, sectorSize)
	copy(fat[offFAT32Name:], "FAT32")
	fat[offSignature], fat[offSignature+1] = 0x55, 0xaa
	at := filepath.Join(h.dir, "devices", name)
	put := map[string][]byte{
		filepath.Join(at, part, "uevent"):              []byte("DEVTYPE=partition\nPARTN=1\nPARTNAME=" + partition.BootLabel + "\n"),
		filepath.Join(at, "queue/logical_block_size"):  []byte("512\n"),
		filepath.Join(h.dir, "dev", name):              table,
		filepath.Join(h.dir, "dev", part):              fat,
		filepath.Join(h.dir, "mnt", part, "zos/other"): nil,
	}
	if node != "" {
		s := good()
		s.Name = node
		b, err := s.Encode()
		if err != nil {
			h.t.Fatal(err)
		}
		put[filepath.Join(h.dir, "mnt", part, MediumPath)] = b
	}
	for file, b := range put {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			h.t.Fatal(err)
		}
		write(h.t, file, b)
	}
	if err := os.Symlink(filepath.Join("../devices", name, part), filepath.Join(h.dir, "sys", part)); err != nil {
		h.t.Fatal(err)
	}
}

// booted has the loader say which partition it was started from.
func (h *machine) booted(id byte) {
	h.t.Helper()
	guid := strings.Repeat(string("0123456789ABCDEF"[id>>4])+string("0123456789ABCDEF"[id&15]), 16)
	guid = guid[:8] + "-" + guid[8:12] + "-" + guid[12:16] + "-" + guid[16:20] + "-" + guid[20:]
	b := []byte{6, 0, 0, 0}
	for _, c := range guid {
		b = append(b, byte(c), 0)
	}
	write(h.t, h.dir+"/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", append(b, 0, 0))
}

// TestOrderOfMedia: the disk that the node was started from comes first,
// whatever the kernel calls it; other media only where it has no seed, and only
// when they agree.
func TestOrderOfMedia(t *testing.T) {
	for name, c := range map[string]struct {
		own, stick, third string // the node of each one's seed, "-" for no such disk
		booted            byte
		late              bool
		want              string // node, or a part of the error
	}{
		"own before a stick":                   {"own", "stick", "-", 0xb1, false, "own"},
		"own before two that disagree":         {"own", "x", "y", 0xb1, false, "own"},
		"a stick where own has none":           {"", "stick", "-", 0xb1, false, "stick"},
		"two sticks that agree":                {"", "stick", "stick", 0xb1, false, "stick"},
		"two sticks that disagree":             {"", "x", "y", 0xb1, false, "several media"},
		"booted from the network, one medium":  {"-", "stick", "-", 0, false, "stick"},
		"booted from the network, two differ":  {"a", "b", "-", 0, false, "several media"},
		"own has not shown up":                 {"-", "stick", "-", 0xb1, false, "has not shown up"},
		"own never shows up: the stick serves": {"-", "stick", "-", 0xb1, true, "stick"},
		"none has one":                         {"", "", "", 0xb1, false, "no seed here"},
	} {
		h := newMachine(t)
		// The names are such that the order of names would be the wrong one.
		for _, d := range []struct {
			name string
			id   byte
			node string
		}{{"vdb", 0xb1, c.own}, {"nvme0n", 0xa1, c.stick}, {"sdc", 0xc1, c.third}} {
			if d.node != "-" {
				h.disk(d.name, d.id, d.node)
			}
		}
		if c.booted != 0 {
			h.booted(c.booted)
		}
		b, from, _, err := h.m.find(c.late)
		got := ""
		if err != nil {
			got = err.Error()
		} else if s, err := Decode(b); err != nil {
			t.Fatal(err)
		} else {
			got = s.Name
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %q from %s, want %q", name, got, from, c.want)
		}
	}
}

// A seed in SMBIOS does not make the node overlook its own disk, and two media
// that disagree stop it.
func TestSeedIsNotGuessed(t *testing.T) {
	h := newMachine(t)
	h.disk("sda", 1, "x")
	h.disk("sdb", 2, "y")
	if _, err := load(context.Background(), h.m.log, h.dir+"/none", h.m, h.dir+"/dmi"); !errors.Is(err, ErrSeveral) {
		t.Errorf("%v", err)
	}
}

// TestTwinIsNotGuessed: two disks with one image stop the node before it takes
// the seed of either; one alone is waited for when the firmware says that it
// started from a stick and this is none.
func TestTwinIsNotGuessed(t *testing.T) {
	h := newMachine(t)
	h.disk("nvme0n", 0xb1, "inside")
	h.booted(0xb1)
	const globalGUID = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	write(t, h.dir+"/efivars/BootCurrent"+globalGUID, []byte{6, 0, 0, 0, 1, 0})
	// A boot entry whose path is a USB port's.
	write(t, h.dir+"/efivars/Boot0001"+globalGUID, []byte{7, 0, 0, 0, 1, 0, 0, 0, 10, 0, 0, 0, 3, 5, 6, 0, 0, 0, 0x7f, 0xff, 4, 0})
	if _, _, _, err := h.m.find(false); !errors.Is(err, errLate) {
		t.Errorf("started from a stick that is not there yet: %v", err)
	}
	h.disk("sda", 0xb1, "stick")
	for _, late := range []bool{false, true} {
		if _, _, _, err := h.m.find(late); !errors.Is(err, partition.ErrTwins) {
			t.Errorf("both are there: %v", err)
		}
	}
}
