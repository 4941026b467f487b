// SPDX-License-Identifier: Apache-2.0

package ci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMakeImage: each word of make image reaches the image, or stops it before
// anything is built.
func TestMakeImage(t *testing.T) {
	keys := t.TempDir()
	if err := os.WriteFile(filepath.Join(keys, "db.key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		words string // as typed
		want  string // of the command; "": it stops
		says  string
	}{
		"a try":                       {"", "build/bin/demo --image-only --board qemu-x86_64", ""},
		"a try, signed":               {"KEYS=" + keys, "build/bin/demo --image-only --board qemu-x86_64 --keys " + keys, ""},
		"a try of a version":          {"VERSION=1.4.0 BOARD=pc-x86_64", "build/bin/demo --image-only --board pc-x86_64 --version 1.4.0", ""},
		"for a ledger":                {"ROOT=r.json", "build/bin/zos node build --root r.json -o build/images/qemu-x86_64 --board qemu-x86_64", ""},
		"for a ledger, with all":      {"ROOT=r.json SEED=s.json VERSION=2.0 BOARD=a/my.yaml KEYS=" + keys, "build/bin/zos node build --root r.json --seed s.json -o build/images/my --board a/my.yaml --keys " + keys + " --version 2.0", ""},
		"a seed without its ledger":   {"SEED=s.json", "", "SEED=s.json without ROOT"},
		"keys from where there is no": {"KEYS=" + filepath.Join(keys, "none"), "", "want a folder that zos node keys made"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("make", append([]string{"-n", "-C", "..", "image"}, strings.Fields(c.words)...)...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // make test has words of its own
			out, err := cmd.CombinedOutput()
			said := strings.Join(strings.Fields(strings.ReplaceAll(string(out), "\\\n", " ")), " ")
			switch {
			case c.want == "" && (err == nil || !strings.Contains(said, c.says) || strings.Contains(said, "go build")):
				t.Errorf("%v, want %q and nothing built: %s", err, c.says, out)
			case c.want != "" && (err != nil || !strings.HasSuffix(strings.TrimSpace(strings.Split(said, "make: Leaving")[0]), c.want)):
				t.Errorf("%v, want %q last: %s", err, c.want, out)
			}
		})
	}
}
