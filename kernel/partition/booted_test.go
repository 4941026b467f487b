// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"os"
	"path/filepath"
	"testing"
)

func TestBooted(t *testing.T) {
	dir := t.TempDir()
	if guid, err := Booted(dir); guid != "" || err != nil {
		t.Errorf("no variable: %q, %v", guid, err)
	}
	for data, want := range map[string]string{
		"\x06\x00\x00\x00A\x00B\x00-\x001\x00\x00\x00": "ab-1",
		"\x06\x00\x00\x00":  "",
		"\x06\x00\x00":      "error",
		"\x06\x00\x00\x00A": "error",
	} {
		if err := os.WriteFile(filepath.Join(dir, loaderPartition), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		guid, err := Booted(dir)
		if err != nil {
			guid = "error"
		}
		if guid != want {
			t.Errorf("%q: %q (%v), want %q", data, guid, err, want)
		}
	}
}
