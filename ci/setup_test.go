// SPDX-License-Identifier: Apache-2.0

package ci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSetupLooksAtGo runs setup.sh with a Go that only says its version, its
// own and the one that it would fetch, and with every package installed.
func TestSetupLooksAtGo(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(mod), "\ngo ")
	want, _, _ := strings.Cut(rest, "\n")
	for name, c := range map[string]struct {
		own, fetched string
		ok           bool
		says         []string
	}{
		"the same":           {"go" + want, "", true, nil},
		"newer":              {"go1.99.3", "", true, nil},
		"Debian 12's":        {"go1.19.8", "go1.19.8", false, []string{"version 1.19.8", "Go " + want + " or newer", "go.mod", "install Go"}},
		"a little older":     {"go1.9", "go1.9", false, []string{"version 1.9", "Go " + want}},
		"cannot fetch":       {"go1.22.1", "", false, []string{"version 1.22.1", "Go " + want}},
		"fetches":            {"go1.22.1", "go" + want, true, []string{"is 1.22.1", "fetched " + want}},
		"says nothing of it": {"", "", false, []string{"version unknown", "Go " + want}},
	} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			put := func(tool, text string) {
				if err := os.WriteFile(filepath.Join(bin, tool), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			put("go", fmt.Sprintf(`v=%q; [ "$GOTOOLCHAIN" = local ] && v=%q
[ -n "$v" ] || { echo 'go: no such toolchain' >&2; exit 1; }
echo "go version $v linux/amd64"
`, first(c.fetched, c.own, name), c.own))
			put("dpkg-query", `shift 3; for p; do echo "$p installed"; done`)
			cmd := exec.Command("./setup.sh")
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "GOTOOLCHAIN=auto")
			out, err := cmd.CombinedOutput()
			if (err == nil) != c.ok {
				t.Errorf("%v\n%s", err, out)
			}
			for _, s := range c.says {
				if !strings.Contains(string(out), s) {
					t.Errorf("it does not say %q:\n%s", s, out)
				}
			}
			if c.ok && len(c.says) == 0 && len(out) > 0 {
				t.Errorf("nothing was to be said: %s", out)
			}
		})
	}
}

// first is what Go says where it may fetch another one.
func first(fetched, own, name string) string {
	if fetched == "" && name != "cannot fetch" {
		return own
	}
	return fetched
}
