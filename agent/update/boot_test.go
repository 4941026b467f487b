// SPDX-License-Identifier: Apache-2.0

package update

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/zos-node/zos/agent/update/fat"
)

// efivar writes a text variable as efivarfs shows it.
func efivar(t *testing.T, dir, name, text string) {
	t.Helper()
	b := []byte{6, 0, 0, 0}
	for _, c := range append(utf16.Encode([]rune(text)), 0) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// disks makes two disks with one of our partitions each, in a made-up /sys and
// /dev; the GUID of the second ends in 22.
func disks(t *testing.T) (sys, dev string) {
	t.Helper()
	root := t.TempDir()
	for disk, last := range map[string]byte{"sda": 0x11, "vda": 0x22} {
		dir := filepath.Join(root, "devices", disk, disk+"1")
		table := make([]byte, 2048)
		copy(table[512:], "EFI PART")
		binary.LittleEndian.PutUint64(table[512+72:], 2)
		binary.LittleEndian.PutUint32(table[512+84:], 128)
		table[1024+16+15] = last
		for name, content := range map[string]string{
			filepath.Join(dir, "uevent"):                                     "PARTN=1\nPARTNAME=zos ESP\n",
			filepath.Join(root, "devices", disk, "queue/logical_block_size"): "512\n",
			filepath.Join(root, "dev", disk):                                 string(table),
		} {
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(filepath.Join(root, "class"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(dir, filepath.Join(root, "class", disk+"1")); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(root, "class"), filepath.Join(root, "dev")
}

// TestPartition: the one that the loader names, whatever else is there.
func TestPartition(t *testing.T) {
	sys, dev := disks(t)
	vars := t.TempDir()
	const name = "LoaderDevicePartUUID" + "-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	if _, err := Partition(vars, sys, dev); !errors.Is(err, ErrNoPartition) || !strings.Contains(err.Error(), "names no partition") {
		t.Errorf("without the loader's word: %v", err)
	}
	efivar(t, vars, name, "00000000-0000-0000-0000-000000000022")
	if got, err := Partition(vars, sys, dev); err != nil || got != filepath.Join(dev, "vda1") {
		t.Errorf("%s, %v", got, err)
	}
	efivar(t, vars, name, "00000000-0000-0000-0000-000000000033")
	if _, err := Partition(vars, sys, dev); !errors.Is(err, ErrNoPartition) || !strings.Contains(err.Error(), "0033, which no disk here has") {
		t.Errorf("a disk that is gone: %v", err)
	}
	for _, bad := range []string{"\x06\x00", "\x06\x00\x00\x00\x00"} {
		if err := os.WriteFile(filepath.Join(vars, name), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Partition(vars, sys, dev); err == nil || errors.Is(err, ErrNoPartition) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSecureBoot(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]bool{"\x06\x00\x00\x00\x01": true, "\x06\x00\x00\x00\x00": false, "": false} {
		if err := os.WriteFile(filepath.Join(dir, "SecureBoot"+globalGUID), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if SecureBoot(dir) != want {
			t.Errorf("%q", content)
		}
	}
	if SecureBoot(t.TempDir()) {
		t.Error("without the variable")
	}
}

// TestJudge has one line for each way in which a start can find the disk.
func TestJudge(t *testing.T) {
	x, y := file{slot{Version: "1.0"}, "x"}, func(left, done int) file { return file{slot{"1.1", true, left, done}, "y"} }
	blessedY := file{slot{Version: "1.1"}, "y"}
	with := func(state, reason string) memory {
		return memory{Rollout: 7, Version: "1.1", State: state, Reason: reason, Told: true, Tried: []int64{}}
	}
	for name, c := range map[string]struct {
		all     []file
		m       memory
		running string
		todo    deed
		state   string
		says    string
	}{
		"nothing ever happened":           {[]file{x}, empty(), "1.0", nothing, stateNone, ""},
		"its trial":                       {[]file{x, y(2, 1)}, with(stateWritten, ""), "1.1", trial, stateTrial, ""},
		"its second try":                  {[]file{x, y(1, 2)}, with(stateTrial, "the ledger is not followed"), "1.1", trial, stateTrial, "the ledger"},
		"trial of what nobody remembers":  {[]file{x, y(2, 1)}, empty(), "1.1", trial, stateTrial, ""},
		"blessed before that was noted":   {[]file{x, blessedY}, with(stateTrial, ""), "1.1", noted, stateBlessed, ""},
		"blessed and told":                {[]file{x, blessedY}, with(stateBlessed, "healthy"), "1.1", nothing, stateBlessed, "healthy"},
		"written, and not started yet":    {[]file{x, y(3, 0)}, with(stateWritten, ""), "1.0", again, stateWritten, ""},
		"cut off while it was written":    {[]file{x}, with(stateWritten, ""), "1.0", noted, stateNone, ""},
		"three tries without a word":      {[]file{x, y(0, 3)}, with(stateWritten, ""), "1.0", noted, stateBack, "never came up"},
		"three tries, the agent was seen": {[]file{x, y(0, 3)}, with(stateTrial, ""), "1.0", noted, stateBack, "came up and ended"},
		"given up":                        {[]file{x, y(0, 1)}, with(stateTrial, "no heartbeat"), "1.0", noted, stateBack, "started once and was not found healthy; the last that its agent noted: no heartbeat"},
		"somebody chose the old one":      {[]file{x, y(2, 1)}, with(stateTrial, ""), "1.0", noted, stateBack, "started once"},
		"blessed, and the old one runs":   {[]file{x, blessedY}, with(stateTrial, ""), "1.0", noted, stateBack, "started from 1.0"},
		"its file is gone":                {[]file{x}, with(stateTrial, ""), "1.0", noted, stateBack, "gone"},
		"failed, told":                    {[]file{x}, with(stateFailed, "no room"), "1.0", nothing, stateFailed, "no room"},
	} {
		m, todo := judge(c.all, c.m, c.running)
		if todo != c.todo || m.State != c.state || !strings.Contains(m.Reason, c.says) {
			t.Errorf("%s: %+v, deed %d", name, m, todo)
		}
		if failed := len(m.Tried) == 1 && m.Tried[0] == 7; failed != (c.todo == noted && c.state == stateBack) || failed && m.Told {
			t.Errorf("%s: remembers %+v", name, m)
		}
	}
}

// TestMemory: what cannot be read is none, and never stops a start.
func TestMemory(t *testing.T) {
	r := newRig(t)
	u := r.updater("1.0", func() {})
	if _, err := u.resume(); err != nil {
		t.Fatal(err)
	}
	v, err := fat.Open(r.disk)
	if err != nil {
		t.Fatal(err)
	}
	long := memory{Rollout: 3, Version: "1.1", State: stateBack, Reason: strings.Repeat("ä", maxReason), Tried: make([]int64, 2*maxTried)}
	if err := long.save(v); err != nil {
		t.Fatal(err)
	}
	m, err := load(v)
	if err != nil || len(m.Reason) > maxReason || len(m.Tried) != maxTried || m.Rollout != 3 {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []string{"", "{", `{"rollout":1}`, strings.Repeat(" ", maxMemory+1)} {
		if err := v.Overwrite(memoryPath, strings.NewReader(bad), int64(len(bad))); err != nil {
			t.Fatal(err)
		}
		if m, err := load(v); err == nil || m.Rollout != -1 {
			t.Errorf("%.20q: %+v, %v", bad, m, err)
		}
	}
	if got := r.settle(); got != "1.0" {
		t.Error(got)
	}
}
