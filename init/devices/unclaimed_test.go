// SPDX-License-Identifier: Apache-2.0

package devices

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestUnclaimed(t *testing.T) {
	dir := t.TempDir()
	for name, files := range map[string]map[string]string{
		"0000:00:00.0": {"class": "0x060000\n", "vendor": "0x8086\n", "device": "0x29c0\n"},                // a bridge
		"0000:00:02.0": {"class": "0x020000\n", "vendor": "0x8086\n", "device": "0x10d3\n", "driver": "x"}, // taken
		"0000:00:03.0": {"class": "0x020000\n", "vendor": "0x15b3\n", "device": "0x1017\n"},
		"0000:00:04.0": {"class": "0x010700\n"},
	} {
		for f, text := range files {
			p := filepath.Join(dir, name, f)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := Unclaimed(dir)
	if want := []string{"0000:00:03.0 020000 15b3:1017", "0000:00:04.0 010700 ?:?"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if got, err := Unclaimed(filepath.Join(dir, "none")); err != nil || got != nil {
		t.Errorf("no PCI: %q, %v", got, err)
	}
}
